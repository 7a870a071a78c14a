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

"""Named randomness: what is drawn depends on a name, never on how much was drawn before it."""

import hashlib

import numpy as np


def named_random(name: tuple) -> np.random.Generator:
    """A generator that depends on ``name`` alone (seed, epoch and id of a sample, say), in any process."""
    return np.random.default_rng(list(hashlib.sha256(repr(name).encode()).digest()))
