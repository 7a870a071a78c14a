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

"""Answers that cannot be trusted: how they are told, and what is given in their place.

A small LLM that hears nothing goes on talking, and one that is lost repeats itself. A recipe's ``generation.guards``
names what is looked for and what is done about it: ``{silence: empty, loop: retry, chatter: ctc, disagreement: ctc}``.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nemo_speechllm.data.conversation import SAMPLE_RATE
from nemo_speechllm.metrics.error_rate import error_rate
from nemo_speechllm.metrics.hallucination import is_chatter, is_loop
from nemo_speechllm.recipes import complete
from nemo_speechllm.recipes.generation import Guards

RETRY_BEAM_SIZE = 4
SILENCE_DB = -60.0  # of full scale; a quiet room is at -50
MAX_DISAGREEMENT = 0.6  # character error rate against CTC
_FRAME = SAMPLE_RATE // 20


def chosen_guards(guards: Guards | Mapping[str, str] | None) -> dict[str, str]:
    """Return what is to be done by what is found, in the order it is looked for.

    Args:
        guards: the recipe's ``generation.guards``, whole or in part; None: nothing is looked for.

    Raises:
        SettingError: there is no such guard or action.
    """
    actions = {} if guards is None else complete(Guards, guards, "model.generation.guards")
    return {str(kind): action for kind, action in actions.items() if action is not None}


def is_silent(samples: Tensor) -> bool:
    """Tell whether no 50 ms of a recording, (T,), have a level above -60 dB of full scale."""
    frames = torch.nn.functional.pad(samples.float(), (0, -len(samples) % _FRAME)).view(-1, _FRAME)
    return bool(frames.square().mean(1).max() <= 10 ** (SILENCE_DB / 10))


def disagrees(text: str, hypothesis: str) -> bool:
    """Tell whether an answer is something else than what was heard: over 60 % of characters differ.

    Where nothing was heard there is nothing to compare.
    """
    return bool(hypothesis) and error_rate([text], [hypothesis], "char", "basic") > MAX_DISAGREEMENT


def find_fault(
    kinds: list[str], text: str, samples: Tensor, heard: Sequence[str] = (), truncated: bool = False
) -> str | None:
    """Return the first of ``kinds`` that an answer shows, or None.

    Args:
        text: the answer.
        samples: what it was given to, (T,).
        heard: CTC's hypothesis, and Whisper's where it has a say; none where the disagreement is not asked for. One
            that is like the answer is enough. They excuse what sounds like chatter and was said, such as "We are
            unable to process your request".
        truncated: the answer was cut at its limit of tokens. One that is shorter than what was heard has not come to
            its end, and the limit, which its caller may have asked for, is no disagreement.
    """
    is_part = truncated and len(text) < max(map(len, heard), default=0)
    shows = {
        "silence": lambda: is_silent(samples),
        "loop": lambda: is_loop(text),
        "chatter": lambda: is_chatter(text) and not any(map(is_chatter, heard)),
        "disagreement": lambda: not is_part and bool(heard) and all(disagrees(text, other) for other in heard),
    }
    return next((kind for kind in kinds if shows[kind]()), None)
