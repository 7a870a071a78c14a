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

"""The checkpoints that come with the package."""

from pathlib import Path

from nemo.core.classes.common import PretrainedModelInfo

CHECKPOINT_FOLDER = Path(__file__).parent.parent / "checkpoints"


def shipped_models(pattern: str = "*.nemo") -> dict[str, Path]:
    """Return name → file of every checkpoint that comes with the package and whose file matches a pattern."""
    return {path.stem: path for path in sorted(CHECKPOINT_FOLDER.glob(pattern))}


def shipped_info(path: Path, model_class: type) -> PretrainedModelInfo:
    """Return a checkpoint as NeMo lists models.

    NeMo copies what it restores by name into a cache, by location and description: both change with the file.
    """
    file = path.stat()
    return PretrainedModelInfo(
        pretrained_model_name=path.stem,
        description=(
            f"shipped with the package, {file.st_size} bytes, written {file.st_mtime_ns}; see its page in docs"
        ),
        location=path.absolute().as_uri(),
        class_=model_class,
    )
