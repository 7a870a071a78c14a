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

"""Prepare the multilingual telephone prompts as NeMo manifests.

    python examples/data/prepare_prompts.py --out data/prompts --langs en es fr it ru

It fetches Debian packages by name with apt-get (no root needed); elsewhere, give a folder of .deb files with
--packages-dir.
"""

import argparse
from pathlib import Path

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.corpora.telephone_prompts import LANGUAGES, format_summary, prepare_prompts


def main() -> None:
    """Prepare the prompts, and report what there is and what was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for manifests and audio")
    parser.add_argument("--langs", nargs="+", choices=LANGUAGES, default=list(LANGUAGES), help="default: all")
    parser.add_argument("--packages-dir", type=Path, help="folder with the .deb files, instead of apt-get")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split by prompt (default 0)")
    arguments = parser.parse_args()
    rows, skipped = prepare_prompts(arguments.out, arguments.langs, arguments.packages_dir, arguments.seed)
    emit(format_summary(rows, skipped, arguments.langs))


if __name__ == "__main__":
    run_command(main)
