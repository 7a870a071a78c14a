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

"""A killed run goes on with the losses it would have had: same data order, same random numbers."""

import functools
import io
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from nemo.collections.asr.losses.ctc import CTCLoss
from nemo.collections.asr.models import ASRModel
from nemo.core.classes import ModelPT
from nemo.utils import logging
from nemo.utils.callbacks import NeMoModelCheckpoint
from nemo.utils.get_rank import is_global_rank_zero
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from nemo_speechllm.checkpointing.ckpt import make_safe, read_checkpoint, written_whole
from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.checkpointing.kept_files import FILES_KEY, files_of_ckpt
from nemo_speechllm.data.filters import check_not_empty
from nemo_speechllm.modules.collectives import any_rank, gathered, summed, world_size
from nemo_speechllm.randomness import random_states, set_random_states
from nemo_speechllm.recipes.models import TrainedRecipe
from nemo_speechllm.training.fsdp import FSDP2Strategy, clip_gradients, in_whole, is_part, is_sharded, like
from nemo_speechllm.training.monitors import OF_NEMO, check_monitors
from nemo_speechllm.training.non_finite import NonFiniteGuard, check_weights
from nemo_speechllm.training.resumed_state import batches_taken, check_saved, name_failures, shares_of
from nemo_speechllm.training.sharding import Share, skip_batches


class ResumableModel(ModelPT):
    """A model whose Lightning checkpoints have what Lightning leaves out.

    That is the place in the data and the state of the random numbers.

    All that is added is tensors and plain values, as is the config, and nothing else is loaded (`read_checkpoint`),
    whether by ``load_from_checkpoint``, ``Trainer.fit(ckpt_path=…)`` or ``init_from_ptl_ckpt``.

    Lightning restores weights, optimizer and counters, but starts the data from the beginning. Lhotse's own sampler
    state cannot be used: it does not exist for the constraints NeMo batches by, and it counts batches that were only
    prefetched.

    Attributes:
        tokenizer: of the text that is trained on, which every model sets when it is built.
        resumed_random_states: of the checkpoint, until the first step takes them up.
        shares: of the epoch's batches, which processes before this one took, see `skip_batches`.
    """

    tokenizer: Any
    resumed_random_states: dict[str, Any] | None = None
    shares: tuple[Share, ...] = ()
    _resumed_gradients: dict[str, Tensor] | None = None
    _train_ended = False

    # what is read and written ----------------------------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path | IO[bytes], *args, map_location=None, **kwargs):
        """Restore a Lightning checkpoint, as Lightning's method does; nothing in it is executed.

        Raises:
            CheckpointError: the file is damaged, or holds anything but tensors and plain values.
        """
        checkpoint = read_checkpoint(checkpoint_path, map_location or "cpu")
        plain = io.BytesIO()  # Lightning unpickles whatever it is given: this is what was read
        left_out = ("optimizer_states", FILES_KEY)
        torch.save({key: value for key, value in checkpoint.items() if key not in left_out}, plain)
        plain.seek(0)
        try:
            with files_of_ckpt(checkpoint):
                return super().load_from_checkpoint(plain, *args, map_location=map_location, **kwargs)
        except CheckpointError as error:
            if str(checkpoint_path) in str(error):
                raise
            raise CheckpointError(f"{checkpoint_path}: {error}") from error
        except Exception as error:  # of Lightning, which believes what it reads
            raise CheckpointError(
                f"{checkpoint_path} cannot be restored: {type(error).__name__}: {str(error)[:2000]}. Take another "
                "checkpoint of the same run, or its .nemo file"
            ) from error

    def maybe_init_from_pretrained_checkpoint(self, cfg: DictConfig, map_location: str = "cpu") -> None:
        """Take weights from where ``init_from_…`` says, as NeMo's method does.

        Raises:
            CheckpointError: a Lightning checkpoint is damaged, or holds anything but tensors and plain values.
        """
        source = cfg.get("init_from_ptl_ckpt")
        for path in [source] if isinstance(source, str) else [entry.path for entry in (source or {}).values()]:
            read_checkpoint(path)  # NeMo reads it again, as safely, but says little of what is wrong
        super().maybe_init_from_pretrained_checkpoint(cfg, map_location)

    def save_to(self, save_path: str | Path) -> None:
        """Write a ``.nemo``. A killed or failing save leaves nothing under the final name.

        Raises:
            CheckpointError: the file cannot be written.
            NonFiniteError: a weight is NaN or infinite.
        """
        check_weights(nn.Module.state_dict(self), str(save_path))
        with written_whole(Path(save_path)) as partial:
            super().save_to(str(partial))
            if is_sharded(self) and not is_global_rank_zero():
                self.state_dict()  # for the first process, which asks for it to write it

    # a training ------------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Return Lightning's, and the one that looks at losses and gradients, by the recipe's ``non_finite``."""
        return [*super().configure_callbacks(), NonFiniteGuard(self.cfg.get("non_finite", TrainedRecipe.non_finite))]

    @property
    def sharded_part(self) -> nn.Module | None:
        """What `FSDP2Strategy` shards the layers of: a model of Hugging Face's that runs as often in every process."""
        return None

    def configure_model(self) -> None:
        """Make nothing, but refuse to shard a model that has nothing to shard.

        Raises:
            ValueError: see above.
        """
        trainer = self._trainer  # there is none where a checkpoint is restored
        if trainer is not None and isinstance(trainer.strategy, FSDP2Strategy) and self.sharded_part is None:
            raise ValueError(
                f"trainer.strategy shards the layers of a text decoder, and {type(self).__name__} has none; use "
                "trainer=ddp"
            )

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, also where some gradients are whole and others in parts."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if gradient_clip_val and any(map(is_part, parameters)):
            clip_gradients(parameters, gradient_clip_val, gradient_clip_algorithm or "norm")
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def setup(self, stage: str | None = None) -> None:
        """Set up as NeMo does.

        Raises:
            ValueError: the trainer's strategy shards the model, or a callback watches what the model does not log.
        """
        check_strategy(self.trainer.strategy)
        make_safe(self.trainer.strategy)
        name_failures(self.trainer)
        self._train_ended = False
        super().setup(stage)
        if stage == "fit":
            self._check_monitors()
            for module in self.modules():
                if isinstance(module, CTCLoss):  # NeMo's divides by nothing where a whole batch is silence
                    vars(module)["reduce"] = functools.partial(_reduced, module)

    def _check_monitors(self) -> None:
        if isinstance(self, ASRModel):
            check_monitors(self.trainer, type(self).__name__, self._of_each_validation_set(OF_NEMO))

    def _of_each_validation_set(self, names: Iterable[str]) -> list[str]:
        """Return the names, and as they are logged where there are several validation sets."""
        sets = len(self._validation_dl) if isinstance(self._validation_dl, list) else 1
        prefixes = [self.get_validation_dataloader_prefix(index) for index in range(sets)] if sets > 1 else []
        return [*names, *(f"{prefix}{name}" for prefix in prefixes for name in names if name.startswith("val_"))]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the random states, and the gradients of an unfinished step.

        Raises:
            NonFiniteError: a weight is NaN or infinite.
        """
        check_weights(checkpoint["state_dict"], "the checkpoint")
        hyper_parameters = OmegaConf.create(dict(self.hparams))
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = OmegaConf.to_container(hyper_parameters)
        checkpoint.pop(self.CHECKPOINT_HYPER_PARAMS_TYPE, None)
        checkpoint["rng_states"] = gathered(random_states(self.device))
        if "loops" in checkpoint:  # of a training
            checkpoint["shares"] = [list(share) for share in self._shares_so_far(checkpoint)]
        if self._trainer is not None and self._trainer.fit_loop._should_accumulate():
            checkpoint["gradients"] = {
                name: in_whole(gradient) if is_part(gradient) else summed(gradient) / world_size()
                for name, gradient in ((name, parameter.grad) for name, parameter in self.named_parameters())
                if gradient is not None
            }

    def _shares_so_far(self, checkpoint: dict[str, Any]) -> list[Share]:
        return [*self.shares, (world_size(), batches_taken(checkpoint) - sum(batches for _, batches in self.shares))]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check what a resumed training takes up, settle the counters, note random states and gradients.

        The last two are for the first step.

        Raises:
            ValueError: see `check_saved`.
        """
        if self._trainer is None or self._trainer.state.fn != TrainerFn.FITTING:
            return
        check_saved(checkpoint, self._trainer, self)
        _settle(checkpoint["loops"]["fit_loop"], checkpoint["global_step"])
        self.resumed_random_states = _states_of_this_process(checkpoint.get("rng_states"))
        if batches_taken(checkpoint):
            self.shares = shares_of(checkpoint)
        self._resumed_gradients = checkpoint.get("gradients")

    def on_train_batch_start(self, batch: Any, batch_idx: int, unused: int = 0) -> int | None:
        """Take up the checkpoint's random states and gradients, in the first step after a resume."""
        # not earlier: what happens between the start of a process and its first step draws random numbers too
        if self.resumed_random_states is not None:
            set_random_states(self.resumed_random_states, self.device)
            self.resumed_random_states = None
        if self._resumed_gradients is not None:
            for name, parameter in self.named_parameters():
                if name in self._resumed_gradients:
                    parameter.grad = like(parameter, self._resumed_gradients[name])
            self._resumed_gradients = None
        return super().on_train_batch_start(batch, batch_idx, unused)

    def on_train_epoch_start(self) -> None:
        """Let the dataloader's workers draw their seeds by the epoch, none of which has been taken yet."""
        super().on_train_epoch_start()
        if not self._trainer.fit_loop.restarting:
            self.shares = ()
        if isinstance(self._train_dl, DataLoader):
            name_worker_seeds(self._train_dl, self._trainer.fit_loop.epoch_progress.current.processed)

    def on_train_epoch_end(self) -> None:
        """Refuse an epoch without data.

        Raises:
            ValueError: an epoch had no batch; Lightning would go on with the next one, for ever.
        """
        super().on_train_epoch_end()
        if self._trainer.fit_loop.epoch_loop.batch_progress.current.processed == 0:
            raise ValueError("an epoch has passed without one batch; look at the filters of model.train_ds")

    def on_train_end(self) -> None:
        """Note that this process has trained."""
        super().on_train_end()
        self._train_ended = True

    def on_fit_end(self) -> None:
        """Write the ``.nemo`` that an earlier, killed process may have left out."""
        super().on_fit_end()
        if not self._train_ended:  # all steps had been taken before: there was nothing to train
            write_missing_nemo(self.trainer, self)

    def _setup_dataloader_from_config(self, config: DictConfig) -> DataLoader:
        """Return a dataloader, as NeMo's models make it.

        Raises:
            ValueError: the filters of the section leave no row.
        """
        if config.get("use_lhotse"):
            resolved = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(config, resolve=True)))
            check_not_empty(resolved, Dataset(), self.tokenizer)
        return super()._setup_dataloader_from_config(config)

    def train_dataloader(self) -> DataLoader | None:
        """Return the training data; of a resumed run, what its epoch has left."""
        dataloader = super().train_dataloader()
        fit_loop = self._trainer.fit_loop if self._trainer is not None else None
        if isinstance(dataloader, DataLoader) and fit_loop is not None:
            epoch = fit_loop.epoch_progress.current.processed
            name_worker_seeds(dataloader, epoch)
            if fit_loop.restarting:
                skip_batches(dataloader, epoch, self.shares)
        return dataloader

    def val_dataloader(self) -> DataLoader | list[DataLoader] | None:
        """Return NeMo's; that a pass over it begins costs the training no random number."""
        dataloaders = super().val_dataloader()
        for dataloader in dataloaders if isinstance(dataloaders, list) else [dataloaders]:
            if isinstance(dataloader, DataLoader):
                name_worker_seeds(dataloader, 0)
        return dataloaders


def _reduced(loss: CTCLoss, losses: Tensor, target_lengths: Tensor) -> Tensor:
    return CTCLoss.reduce(loss, losses, target_lengths.clamp(min=1))


def resumable(model_class: type[ModelPT]) -> type[ModelPT]:
    """Return a class of NeMo's own that is a `ResumableModel`, too; what it writes is NeMo's.

    A class that has it is returned as it is.
    """
    if issubclass(model_class, ResumableModel):
        return model_class
    name = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    return type(model_class.__name__, (ResumableModel, model_class), name)


def name_worker_seeds(dataloader: DataLoader, epoch: int) -> None:
    """Let a dataloader draw its workers' seeds by the epoch, not by a number that the whole process draws from."""
    if dataloader.generator is None:
        dataloader.generator = torch.Generator()
    dataloader.generator.manual_seed(epoch)


def check_strategy(strategy: Strategy) -> None:
    """Refuse a strategy whose checkpoints would be others than those of one process.

    Raises:
        ValueError: see above.
    """
    known = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy, FSDP2Strategy))
    if not known or isinstance(strategy, DeepSpeedStrategy):
        raise ValueError(
            f"trainer.strategy is {type(strategy).__name__}, which is not supported. Use trainer.strategy=auto, "
            "trainer=ddp, or trainer=fsdp2, which shards the layers of the text decoder"
        )


def _settle(fit_loop: dict[str, Any], global_step: int) -> None:
    """Make Lightning's counters those of the moment between two steps, or epochs, that a checkpoint stands for.

    Lightning counts a step or an epoch as completed only after the hooks in which checkpoints are written. It would
    take up the last step's place again, and of an epoch's end count that epoch twice.
    """
    batches, epochs = fit_loop["epoch_loop.batch_progress"], fit_loop["epoch_progress"]
    for count in (batches["total"], batches["current"]):
        count.update(dict.fromkeys(("ready", "started", "completed"), count["processed"]))
    if epochs["current"]["processed"] > epochs["current"]["completed"]:
        for count in (epochs["total"], epochs["current"]):
            count.update(dict.fromkeys(("ready", "started", "completed"), count["processed"]))
        batches["current"].update(dict.fromkeys(batches["current"], 0))
        batches["is_last_batch"] = False
    # losses logged after a resume would stand one step too early
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = global_step


def _states_of_this_process(saved: list[dict[str, Any]] | dict[str, Any] | None) -> dict[str, Any] | None:
    """Return this process's of the saved random states; a checkpoint of old has the first process's alone."""
    if saved is None or isinstance(saved, dict):
        return saved
    rank = torch.distributed.get_rank() if world_size() > 1 else 0
    if len(saved) != world_size():
        logging.warning(
            f"{len(saved)} processes wrote the checkpoint and {world_size()} resume it: what the epoch has left is "
            f"trained on in steps of {world_size()} batches, with other dropout than without the interruption"
        )
    return saved[rank] if rank < len(saved) else None


def write_missing_nemo(trainer: Trainer, model: ModelPT) -> None:
    """Write the ``.nemo`` of a finished training where a kill or a full disk had prevented it.

    It is there if it is not older than the last checkpoint.
    """
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, NeMoModelCheckpoint) or not callback.save_nemo_on_train_end:
            continue
        path = Path(callback._format_nemo_checkpoint_name())
        written = [file.stat().st_mtime_ns for file in path.parent.glob("*.ckpt")]
        is_there = path.exists() and path.stat().st_mtime_ns >= max(written, default=0)
        if any_rank(trainer.is_global_zero and not is_there, model.device):
            logging.info(f"the training had ended before {path} was written; it is written now")
            if callback.save_best_model and callback.best_model_path:
                trainer.strategy.load_model_state_dict(read_checkpoint(callback.best_model_path))
            model.save_to(path)
