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

"""The one error whose message is for whoever asked, also where that is a stranger."""


class InputError(ValueError):
    """What is given or asked cannot be answered.

    The message names it and the remedy, and nothing of the machine: a server passes it on to its client. Any other
    `ValueError` of a request is a defect.
    """
