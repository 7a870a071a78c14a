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

"""What a recipe may say below ``model``: each setting with its type, default, range and meaning.

`sections` has the parts, `models` the whole of each model (its class names it as ``recipe``); `complete` checks one.
"""

from nemo_speechllm.recipes.settings import SettingError, as_config, complete

__all__ = ["SettingError", "as_config", "complete"]
