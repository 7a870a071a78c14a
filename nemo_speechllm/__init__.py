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

"""Speech language models for NeMo: four published models on one trunk.

Importing the package registers it with NeMo (see `nemo_speechllm.registration`), so that NeMo's own ``restore_from``
may instantiate this package's classes and its ``ASRModel.from_pretrained`` finds the shipped checkpoints.
``python -m nemo_speechllm SCRIPT ARGS…`` does that for a script that does not know the package.
"""

from nemo_speechllm.moved import name_moved_modules
from nemo_speechllm.package_info import __version__
from nemo_speechllm.registration import register_target_prefix

name_moved_modules()
register_target_prefix()

__all__ = ["__version__"]
