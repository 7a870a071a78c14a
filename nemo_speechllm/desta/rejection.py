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

"""Descriptions that a model should not learn from: refusals, echoes of the seed, cut ones."""

import re

from nemo_speechllm.engines.engine import Completion

_REFUSAL = re.compile(
    r"\bas an? (?:\w+[ -]){0,3}(?:AI|language model|assistant)\b|"
    r"\bI(?:['’]m| am) (?:sorry|unable|not able|afraid|just an? |only an? )|"
    r"\bI (?:can(?:no|['’])t|do(?: not|n['’]t) have the (?:ability|capability)|apologi[sz]e)\b|"
    r"\b(?:no audio|the audio) (?:was|is|has)(?: not| n['’]t)? (?:been )?(?:provided|attached|available)\b",
    re.IGNORECASE,
)
_SEED_HEAD = re.compile(r"\[\d\d:\d\d:\d\d - \d\d:\d\d:\d\d\]")
REASONS = ("empty", "truncated", "refusal", "echo")


def reason_to_reject(completion: Completion, seed: str) -> str | None:
    """Return why a description is not to be learnt from, one of ``REASONS``, or None.

    A refusal speaks of what the LLM cannot do, in the first sentence or two. An echo writes out a time stamp or a list
    of attributes as the seed transcript does: a model that hears would have to invent them.

    Args:
        completion: the LLM's.
        seed: the seed transcript it was given.
    """
    text = completion.text
    if not text:
        return "empty"
    if completion.truncated:
        return "truncated"
    if _REFUSAL.search(text[:200]):
        return "refusal"
    lists = [line.rpartition('" ')[2] for line in seed.splitlines() if line.endswith(")")]
    return "echo" if _SEED_HEAD.search(text) or any(written in text for written in lists) else None
