# Copyright (c) 2026, The nemo_speechllm authors.  All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Shows the pages beside this folder on the site as well; links to them and from them are corrected."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# file → its name on the site, where README.md would be the index
BESIDE = {"README.md": "overview.md"} | {
    f"{name}.md": f"{name}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG")
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside ``docs/``."""
    for name, target in BESIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        text = re.sub(r"(\]\(|^\[[^\]]+\]: )docs/", r"\1", text, flags=re.MULTILINE)
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to these pages lead to where they are on the site."""
    for name, target in BESIDE.items():
        markdown = re.sub(rf"(\]\((?:\.\./)*?)(?:\.\./)?{re.escape(name)}", rf"\1{target}", markdown)
    return markdown
