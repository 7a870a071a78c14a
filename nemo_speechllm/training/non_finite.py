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

"""A loss or gradient that is no number stops a training, or costs it one step; its batch can then be replayed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.utils import logging
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from nemo_speechllm.checkpointing.weights import non_finite_names
from nemo_speechllm.data.conversation import Audio, Conversation, Question, Turn
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.modules.collectives import any_rank
from nemo_speechllm.randomness import random_states, set_random_states
from nemo_speechllm.training.fsdp import gradient_norm, in_whole, is_sharded

STOP, SKIP = POLICIES = ("stop", "skip")
FOLDER = "non_finite"
MOST_IN_A_ROW = 10  # steps that may be skipped one after another: weights that are lost make every later loss NaN
MOST_FILES = 20


class NonFiniteError(RuntimeError):
    """A loss, gradient or weight is NaN or infinite; the message names the batch, a file to replay it and remedies."""


def check_policy(policy: str) -> str:
    """Return ``policy``.

    Raises:
        ValueError: it is neither ``stop`` nor ``skip``.
    """
    if policy not in POLICIES:
        raise ValueError(f"model.non_finite is {policy!r}; it must be one of {', '.join(POLICIES)}")
    return policy


def check_weights(state: dict[str, Tensor], what: str) -> None:
    """Refuse to write weights that are no numbers.

    Args:
        state: weights by name.
        what: is being written, for the message.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
    """
    names = non_finite_names(state)
    if names:
        raise NonFiniteError(
            f"{what} is not written: {len(names)} of {len(state)} weights are not finite, {names[0]} among them. "
            "Train again from an earlier checkpoint with a lower model.optim.lr, or with trainer.gradient_clip_val"
        )


def judge_validation(ids: list[str], others: int, policy: str) -> None:
    """Say which utterances have no finite loss in a validation.

    Args:
        ids: of these.
        others: how many have a finite one.
        policy: of the recipe.

    Raises:
        NonFiniteError: there are any and the policy is to stop.
    """
    if not ids:
        return
    cause = f"the validation loss of {len(ids)} utterances is not finite: {ids[:10]}"
    if policy == STOP:
        raise NonFiniteError(
            f"{cause}. Look at these recordings and texts; lower model.optim.lr or set trainer.gradient_clip_val; or "
            "leave them out of val_loss with model.non_finite=skip"
        )
    logging.warning(f"{cause}; " + ("val_loss is the mean of the others" if others else "no other has one: it is NaN"))


class NonFiniteGuard(Callback):
    """Looks at every loss before its backward pass, and at the gradients before every optimizer step.

    All processes of a training decide alike. Where `torch.amp.GradScaler` scales the loss, infinite gradients are its
    own signal to lower the scale and none of this class's.

    Args:
        policy: ``stop`` raises `NonFiniteError`; ``skip`` leaves out the optimizer step, and warns. Ten skipped steps
            in a row are an error all the same, and so is a training that has skipped every one of its steps.
    """

    def __init__(self, policy: str = STOP):
        self.policy = check_policy(policy)
        self.taken = 0
        self.skipped = 0
        self._in_a_row = 0
        self._window: list[dict[str, Any]] = []  # the batches since the last optimizer step
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._found: str | None = None

    def on_train_batch_start(self, trainer: Trainer, model: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note what a replay needs."""
        if not self._window and self.policy == SKIP:
            self._statistics = [(buffer, buffer.clone()) for buffer in _running_statistics(model)]
        random = getattr(model, "resumed_random_states", None) or random_states(model.device)
        self._window.append({"batch": batch, "random_states": random, "epoch": trainer.current_epoch})

    def on_before_backward(self, trainer: Trainer, model: LightningModule, loss: Tensor) -> None:
        """Judge the loss of a batch."""
        bad = not bool(torch.isfinite(loss.detach()).all())
        if any_rank(bad, model.device):
            cause = f"the loss is {float(loss.detach())}" if bad else "the loss of another process is not finite"
            self._judge(trainer, model, cause, self._window[-1:] if bad else [])

    def on_before_optimizer_step(self, trainer: Trainer, model: LightningModule, optimizer: Optimizer) -> None:
        """Judge the gradients, which are the same on all processes."""
        if self._found is None and getattr(trainer.precision_plugin, "scaler", None) is None:
            names = _non_finite_gradients(model)
            if names:
                cause = f"the gradients of {len(names)} weights are not finite, {names[0]} among them"
                self._judge(trainer, model, cause, self._window)
        if self._found is not None:
            self._leave_out(optimizer)
        else:
            self.taken, self._in_a_row = self.taken + 1, 0
        self._window, self._found = [], None

    def state_dict(self) -> dict[str, int]:
        """Return the counts of the steps, for a checkpoint: a resumed training goes on counting."""
        return {"taken": self.taken, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take up the counts of a checkpoint."""
        self.taken, self.skipped = state_dict["taken"], state_dict["skipped"]

    def on_train_end(self, trainer: Trainer, model: LightningModule) -> None:
        """Refuse what has learnt nothing, before a ``.nemo`` is written of it."""
        self._require_a_step()

    def on_fit_end(self, trainer: Trainer, model: LightningModule) -> None:
        """Refuse it also where a resumed run finds no step left, and would write the ``.nemo`` that is missing."""
        self._require_a_step()

    def _require_a_step(self) -> None:
        if self.skipped and not self.taken:
            raise NonFiniteError(
                f"the training has skipped every one of its {self.skipped} steps, so nothing was learnt and no model "
                "is written. Lower model.optim.lr, set trainer.gradient_clip_val, look at the recordings and texts of "
                "the rows that the warnings name; then train in another folder (name=...)"
            )

    def _judge(self, trainer: Trainer, model: LightningModule, cause: str, batches: list[dict[str, Any]]) -> None:
        where = f"step {trainer.global_step}, epoch {trainer.current_epoch}: {cause}"
        if batches and self.skipped < MOST_FILES:
            where += f" for {_ids(batches)}; {self._write(trainer, model, batches)} replays it"
        self._found = where
        if self.policy == STOP or self._in_a_row + 1 >= MOST_IN_A_ROW:
            in_a_row = f", the {MOST_IN_A_ROW}th in a row" if self.policy == SKIP else ""
            raise NonFiniteError(
                f"{where} (nemo_speechllm.training.non_finite.replay){in_a_row}. Lower model.optim.lr, set "
                "trainer.gradient_clip_val, look at the recordings and texts of these rows"
                + ("" if in_a_row else ", or set model.non_finite=skip")
            )

    def _leave_out(self, optimizer: Optimizer) -> None:
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        logging.warning(f"skipped ({self.skipped} so far): {self._found}")
        optimizer.zero_grad(set_to_none=True)  # an optimizer leaves alone what has no gradient
        with torch.no_grad():
            for buffer, before in self._statistics:
                buffer.copy_(before)

    def _write(self, trainer: Trainer, model: LightningModule, batches: list[dict[str, Any]]) -> Path:
        """Write tensors and plain values alone, which ``torch.load`` reads with its safe default."""
        path = Path(trainer.default_root_dir) / FOLDER / f"step={trainer.global_step}-rank={trainer.global_rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        # the weights as they are in the middle of a training; where steps are skipped, of the first time alone
        is_kept = self.skipped == 0 and not is_sharded(model)
        weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()} if is_kept else None
        content = {"step": trainer.global_step, "state_dict": weights, "batches": list(map(_as_plain, batches))}
        torch.save(content, path)
        return path


def _running_statistics(model: nn.Module) -> list[Tensor]:
    """Return what a forward pass of NaN would spoil without any step: means and variances of normalisation layers."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.training]
    return [buffer for norm in norms for buffer in norm.buffers()]


def _non_finite_gradients(model: nn.Module) -> list[str]:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not gradients or bool(torch.isfinite(gradient_norm(gradients.values()))):
        return []
    named = non_finite_names({name: in_whole(gradient) for name, gradient in gradients.items()})
    return named or list(gradients)  # finite each, and too large for their norm


def _ids(batches: list[dict[str, Any]]) -> str:
    names = [
        item.id for of in batches if isinstance(of["batch"], ConversationBatch) for item in of["batch"].conversations
    ]
    return f"{names}" if names else "a batch of a NeMo dataset, which has no ids"


def _as_plain(noted: dict[str, Any]) -> dict[str, Any]:
    batch = noted["batch"]
    if isinstance(batch, ConversationBatch):
        batch = {
            "conversations": json.dumps([_turns_of(item) for item in batch.conversations], default=str),
            "audio": batch.audio.cpu(),
            "audio_lengths": batch.audio_lengths.cpu(),
        }
    else:
        batch = {"tensors": [item.cpu() for item in batch]}
    return noted | {"batch": batch}


def _turns_of(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation as JSON; None stands for an audio."""
    turns = [
        vars(turn) | {"audios": [None] * len(turn.audios)}
        if isinstance(turn, Question)
        else [turn.role, [None if isinstance(part, Audio) else part for part in turn.parts]]
        for turn in conversation.turns
    ]
    return {"id": conversation.id, "turns": turns, "metadata": conversation.metadata}


def _turn(row: Any, audios: Iterator[Audio]) -> Turn | Question:
    if isinstance(row, dict):
        return Question(**row | {"audios": [next(audios) for _ in row["audios"]]})
    role, parts = row
    return Turn(role, [next(audios) if part is None else part for part in parts])


def replay(model: LightningModule, path: str | Path) -> list[dict[str, float]]:
    """Compute a batch's loss and gradients again, as they were when training stopped.

        model = SALM.load_from_checkpoint("runs/…/checkpoints/….ckpt")  # or from_config_dict, restore_from
        print(replay(model, "runs/…/non_finite/step=812-rank=0.pt"))

    Args:
        model: of the class and recipe that was trained; takes the weights of the file, where it has some.
        path: of the file that the error names.

    Returns:
        Of each batch its losses by name, and ``gradient_norm``; the model's gradients are those of the last one.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["state_dict"] is not None:
        model.load_state_dict(content["state_dict"])
    model.train()
    figures = []
    for noted in content["batches"]:
        model.zero_grad(set_to_none=True)
        set_random_states(noted["random_states"], model.device)
        losses_of = cast(Callable[[Any, int], dict[str, Tensor]], model.replayed_losses)
        losses = losses_of(_from_plain(noted["batch"], model.device), noted["epoch"])
        losses["loss"].backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        figures.append({name: float(loss) for name, loss in losses.items()} | {"gradient_norm": float(norm)})
    return figures


def _from_plain(batch: dict[str, Any], device: torch.device) -> Any:
    if "tensors" in batch:
        return tuple(tensor.to(device) for tensor in batch["tensors"])
    lengths = batch["audio_lengths"]
    audios = (Audio(samples[:length]) for samples, length in zip(batch["audio"], lengths.tolist(), strict=True))
    conversations = [
        Conversation(row["id"], [_turn(turn, audios) for turn in row["turns"]], row["metadata"])
        for row in json.loads(batch["conversations"])
    ]
    return ConversationBatch(conversations, batch["audio"], lengths).to(device)
