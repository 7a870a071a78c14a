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

"""What the callbacks of a training watch must be among what its model logs, or the best checkpoint is never found."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, cast

from lightning.pytorch import Trainer

OF_LIGHTNING = ("epoch", "step")
# of the recognisers that NeMo itself has
OF_NEMO = (
    *("val_loss", "val_wer", "val_wer_ctc", "val_cer", "val_bleu", "train_loss", "train_ctc_loss", "train_rnnt_loss"),
    *("training_batch_wer", "training_batch_wer_ctc", "learning_rate", "global_step", "test_loss", "test_wer"),
)
BY_LANGUAGE = re.compile(r"val_(wer|cer)_\w+|val_(bleu|chrf)(_\w+-\w+)?")
HIGHER_IS_BETTER = re.compile(r"(.*_)?(bleu|chrf)(_.*)?|(.*_)?(listening|alignment)")


def check_monitors(trainer: Trainer, model: str, logged: Iterable[str], of_unknown_languages: bool = False) -> None:
    """Check what checkpoints and early stopping are told to watch, before any work.

    Args:
        trainer: whose callbacks are looked at.
        model: name of its class.
        logged: names of what it will log.
        of_unknown_languages: it may log figures of languages that are not known before.

    Raises:
        ValueError: something else is watched, or with the wrong end up; the nearest name is given, and all of them.
    """
    known = [*OF_LIGHTNING, *logged]
    for callback in cast(Any, trainer).callbacks:
        name = getattr(callback, "monitor", None)
        if name is None:
            continue
        if name not in known and not (of_unknown_languages and BY_LANGUAGE.fullmatch(name)):
            nearest = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"{type(callback).__name__} is to watch {name!r} "
                f"(exp_manager.checkpoint_callback_params.monitor), which {model} does not log with these data"
                + (f"; did you mean {nearest[0]!r}?" if nearest else ";")
                + f" It logs {', '.join(known)}"
            )
        _check_mode(type(callback).__name__, name, getattr(callback, "mode", None))


def _check_mode(callback: str, name: str, mode: str | None) -> None:
    better = "max" if HIGHER_IS_BETTER.fullmatch(name) else "min"
    if mode in ("min", "max") and mode != better and name not in (*OF_LIGHTNING, "global_step", "learning_rate"):
        raise ValueError(
            f"{callback} watches {name} with mode={mode} and would keep the worst; set "
            f"exp_manager.checkpoint_callback_params.mode={better}"
        )
