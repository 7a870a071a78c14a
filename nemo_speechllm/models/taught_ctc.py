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

"""Stage 1 of 2307.11795 for those who have hours of speech and not thousands of hours: CTC with a teacher."""

from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Trainer
from nemo.collections.asr.models import EncDecCTCModelBPE
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_speechllm.checkpointing.ckpt import written_whole
from nemo_speechllm.modules.encoders import build_encoder, valid_positions
from nemo_speechllm.modules.losses import Mean, parts_of_all
from nemo_speechllm.modules.state_cache import CachedEncoder
from nemo_speechllm.recipes import complete
from nemo_speechllm.recipes.models import TaughtCTCRecipe
from nemo_speechllm.training.non_finite import check_weights
from nemo_speechllm.training.resume import ResumableModel


class TaughtCTC(ResumableModel, EncDecCTCModelBPE):
    """NeMo's CTC model whose encoder also learns to predict the states of a frozen, pretrained encoder.

    CTC says little about each second of speech, and nothing that a model without any notion of it can use; a teacher
    says something about every frame. What `save_to` writes is a plain ``EncDecCTCModelBPE``: teacher and predictor
    stay behind. A Lightning checkpoint holds the predictor too, so ``init_from_ptl_ckpt`` goes on with other settings
    where it stood.

    Args:
        cfg: that of ``EncDecCTCModelBPE`` with a section ``teacher``.
    """

    recipe: ClassVar[type] = TaughtCTCRecipe

    def __init__(self, cfg: DictConfig, trainer: Trainer | None = None):
        super().__init__(complete(self.recipe, cfg), trainer)
        teacher = build_encoder(self.cfg.teacher.encoder).eval().requires_grad_(False)
        if self.cfg.teacher.state_cache:
            teacher = CachedEncoder(teacher, self.cfg.teacher.state_cache)
        self._teacher = [teacher]  # in a list, not a submodule: no checkpoint needs its weights
        d_teacher = cast(int, teacher.d_model)
        self.predictor = nn.Linear(self.encoder.d_model, d_teacher)
        self.target_norm = nn.BatchNorm1d(d_teacher, affine=False)
        student_shift = (
            self.preprocessor.featurizer.hop_length / self.cfg.sample_rate * self.encoder.subsampling_factor
        )
        self.taught_per_state = round(student_shift / teacher.frame_shift)
        self.encoder.register_forward_hook(self._keep_states)

    def _keep_states(self, encoder: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> None:
        self._states = output

    def training_step(self, batch: tuple, batch_nb: int) -> dict[str, Any]:
        """NeMo's step with ``weight`` · `teaching_loss` added to the loss."""
        # before NeMo's step, whose preprocessor adds its dither to the samples in place
        taught = self.teach(*batch[:2])
        step = super().training_step(batch, batch_nb)
        losses = self._parts(step["loss"], taught, batch[3])
        self.log("teaching_loss", losses["teaching_loss"], batch_size=len(batch[0]))
        return step | {"loss": losses["loss"]}

    def replayed_losses(self, batch: tuple, epoch: int) -> dict[str, Tensor]:
        """Return the losses that a training step had of a batch; see `nemo_speechllm.training.non_finite.replay`."""
        signal, signal_lengths, targets, target_lengths = batch
        taught = self.teach(signal, signal_lengths)
        log_probs, lengths, _ = self(input_signal=signal, input_signal_length=signal_lengths)
        ctc_loss = self.loss(
            log_probs=log_probs, targets=targets, input_lengths=lengths, target_lengths=target_lengths
        )
        return self._parts(ctc_loss, taught, target_lengths)

    def _parts(self, ctc_loss: Tensor, taught: Tensor, target_lengths: Tensor) -> dict[str, Tensor]:
        """Return the two losses, see `parts_of_all`, and their weighted sum."""
        per_token = self.cfg.get("ctc_reduction", "mean_batch") == "mean_volume"
        states, lengths = self._states
        losses = {
            "ctc_loss": Mean(ctc_loss, target_lengths.clamp(min=1).sum() if per_token else len(target_lengths)),
            "teaching_loss": Mean(self.teaching_loss(states, lengths, taught), lengths.sum()),
        }
        parts = parts_of_all(losses, sorted(losses))
        return {"loss": parts["ctc_loss"] + self.cfg.teacher.weight * parts["teaching_loss"], **parts}

    @torch.no_grad()
    def teach(self, signal: Tensor, signal_lengths: Tensor) -> Tensor:
        """Return the teacher's states of samples (B, T), averaged to the student's frame rate: (B, T', d_teacher)."""
        states, _ = self._teacher[0].to(signal.device)(signal, signal_lengths)
        return nn.functional.avg_pool1d(states.transpose(1, 2), self.taught_per_state, ceil_mode=True).transpose(1, 2)

    def teaching_loss(self, states: Tensor, lengths: Tensor, taught: Tensor) -> Tensor:
        """Return the mean squared error of what the student's states predict of the teacher's.

        The student's are (B, d_model, T) with lengths (B,), the teacher's (B, T', d_teacher). Each dimension of the
        teacher's states is brought to mean 0 and variance 1 first, so a student that predicts nothing has a loss of 1.
        """
        frames = min(states.shape[2], taught.shape[1])  # the two round an utterance's end differently
        valid = valid_positions(lengths, frames)
        predicted = self.predictor(states.transpose(1, 2)[:, :frames][valid])
        return nn.functional.mse_loss(predicted, self.target_norm(taught[:, :frames][valid]))

    def save_to(self, save_path: str | Path) -> None:
        """Write a plain ``EncDecCTCModelBPE``, which NeMo alone restores."""
        cfg = OmegaConf.create({key: value for key, value in self.cfg.items() if key not in ("teacher", "target")})
        plain = EncDecCTCModelBPE(OmegaConf.merge(cfg, {"train_ds": None, "validation_ds": None, "optim": None}))
        plain.cfg = OmegaConf.merge(plain.cfg, cfg)  # NeMo's transcribe reads validation_ds
        weights = self.state_dict()
        plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
        check_weights(plain.state_dict(), str(save_path))
        with written_whole(Path(save_path)) as partial:
            plain.save_to(str(partial))
