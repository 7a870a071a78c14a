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

"""Modules that have moved since 0.1.0rc0: who imports one by its old name is told the new one."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

PACKAGE = "nemo_speechllm."
MOVED = {
    "asset_conversion": "assets.conversion",
    "data.acoustics": "corpora.acoustics",
    "data.audio_file": "audio.audio_file",
    "data.chat_template": "prompts.chat_template",
    "data.composition": "corpora.composition",
    "data.conditions": "corpora.conditions",
    "data.crowd": "corpora.crowd",
    "data.desta": "desta",
    "data.flac": "audio.flac",
    "data.inputs": "models.inputs",
    "data.instruction_cases": "evaluation.instruction_cases",
    "data.instruction_pools": "prompts.instruction_pools",
    "data.instruction_prompt": "prompts.instruction_prompt",
    "data.instruction_sampling": "training.instruction_sampling",
    "data.keyword_context": "training.keyword_context",
    "data.kokoro": "corpora.kokoro",
    "data.lhotse_backend": "audio.lhotse_backend",
    "data.llm_targets": "training.llm_targets",
    "data.manifest": "manifests.manifest",
    "data.manifest_check": "manifests.check",
    "data.plain_text": "prompts.plain_text",
    "data.prompt": "prompts.chat_prompt",
    "data.prompts_corpus": "corpora.telephone_prompts",
    "data.rows": "manifests.rows",
    "data.samples": "audio.samples",
    "data.segmentation": "models.segmentation",
    "data.sharding": "training.sharding",
    "data.skills": "prompts.skills",
    "data.synthesis": "corpora.synthesis",
    "data.synthesis_languages": "corpora.synthesis_languages",
    "data.synthesis_voices": "corpora.synthesis_voices",
    "data.tasks": "corpora.tasks",
    "data.transforms": "training.transforms",
    "folder_lock": "files",
    "journal": "files",
    "metrics.html_report": "evaluation.html_report",
    "metrics.plot": "evaluation.plot",
    "metrics.predictions": "evaluation.predictions",
    "models.archive": "checkpointing.archive",
    "models.asking": "evaluation.asking",
    "models.checkpoint": "checkpointing.checkpoint",
    "models.ckpt": "checkpointing.ckpt",
    "models.non_finite": "training.non_finite",
    "models.resume": "training.resume",
    "modules.engines": "engines.loading",
    "segments": "prompts.segments",
    "whole_file": "files",
}


class _MovedFinder(MetaPathFinder):
    """Asked last, when nobody else has found a module."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Refuse a module that has moved.

        Raises:
            ModuleNotFoundError: the module has moved; the message says where.
        """
        new = MOVED.get(fullname.removeprefix(PACKAGE)) if fullname.startswith(PACKAGE) else None
        if new is not None:
            raise ModuleNotFoundError(f"{fullname} has moved to {PACKAGE}{new}; import that", name=fullname)


def name_moved_modules() -> None:
    """Let an import of a module that has moved say where it is; a second call adds nothing."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())
