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

"""What is wrong with an audio."""


class AudioError(RuntimeError):
    """An audio cannot be used; the message names it and the remedy.

    Attributes:
        kind: of the defect, in two words.
    """

    def __init__(self, message: str, kind: str = "unreadable audio"):
        super().__init__(message)
        self.kind = kind


def raise_cut_short(name: str, seconds: float, expected: float) -> None:
    """Raise the error of an audio that ends too early, after ``seconds`` of those ``expected``."""
    raise AudioError(
        f"{name}: the audio is cut short: {seconds:.2f} s of the {expected:.2f} s that it should have; copy or "
        "convert it again"
    )
