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
from lhotse.dataset.sampling.base import CutSampler
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from nemo.collections.asr.losses.ctc import CTCLoss
from nemo.collections.asr.models import ASRModel
from nemo.core.classes import ModelPT
from nemo.utils import logging
from nemo.utils.callbacks import NeMoModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from nemo_speechllm.checkpointing.ckpt import make_safe, read_checkpoint, written_whole
from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.data.filters import check_not_empty
from nemo_speechllm.modules.collectives import gathered, summed, world_size
from nemo_speechllm.randomness import random_states, set_random_states
from nemo_speechllm.recipes.models import TrainedRecipe
from nemo_speechllm.training.monitors import OF_NEMO, check_monitors
from nemo_speechllm.training.non_finite import NonFiniteGuard, check_weights
from nemo_speechllm.training.resumed_state import check_saved, name_failures


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
    """

    tokenizer: Any
    resumed_random_states: dict[str, Any] | None = None
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
        torch.save({key: value for key, value in checkpoint.items() if key != "optimizer_states"}, plain)
        plain.seek(0)
        try:
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

    # a training ------------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Callback]:
        """Return Lightning's, and the one that looks at losses and gradients, by the recipe's ``non_finite``."""
        return [*super().configure_callbacks(), NonFiniteGuard(self.cfg.get("non_finite", TrainedRecipe.non_finite))]

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
        if self._trainer is not None and self._trainer.fit_loop._should_accumulate():
            checkpoint["gradients"] = {
                name: summed(parameter.grad) / world_size()
                for name, parameter in self.named_parameters()
                if parameter.grad is not None
            }

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
                    parameter.grad = self._resumed_gradients[name].to(parameter)
            self._resumed_gradients = None
        return super().on_train_batch_start(batch, batch_idx, unused)

    def on_train_epoch_start(self) -> None:
        """Let the dataloader's workers draw their seeds by the epoch."""
        super().on_train_epoch_start()
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
                skip_batches(dataloader, epoch, fit_loop.epoch_loop.batch_progress.current.processed)
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
    """Refuse a strategy that shards the model.

    Raises:
        ValueError: the strategy is none that keeps the whole model in each process.
    """
    whole = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)) and not isinstance(strategy, DeepSpeedStrategy)
    if not whole:
        raise ValueError(
            f"trainer.strategy is {type(strategy).__name__}, which shards the model; that is not supported yet. Use "
            "trainer.strategy=auto or ddp, and make the model fit with llm.dtype=bfloat16, lora or a smaller batch"
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
            f"{len(saved)} processes wrote the checkpoint and {world_size()} resume it: the order of the data and "
            "dropout are others than those of a run without interruption"
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
        if trainer.is_global_zero and not (path.exists() and path.stat().st_mtime_ns >= max(written, default=0)):
            logging.info(f"the training had ended before {path} was written; it is written now")
            if callback.save_best_model and callback.best_model_path:
                model.load_state_dict(read_checkpoint(callback.best_model_path)["state_dict"])
            model.save_to(path)


def skip_batches(dataloader: DataLoader, epoch: int, batches: int) -> None:
    """Let the next pass over a Lhotse dataloader begin after its first ``batches``; no audio is read for that.

    Args:
        dataloader: from `nemo_speechllm.data.dataloader.build_dataloader`.
        epoch: which pass it is; a sampler shuffles each one differently.
        batches: how many to leave out.
    """
    if isinstance(dataloader.dataset, IterableDataset):
        logging.warning(
            "tarred and Shar data are read as a stream that cannot be wound forward: the resumed run draws its data "
            "from the beginning of train_ds.shard_seed's order; set another shard_seed to see other data first"
        )
        return
    sampler = cast(CutSampler, dataloader.sampler)
    sampler.set_epoch(epoch)
    iter(sampler)
    for _ in range(batches):
        if next(sampler, None) is None:
            break
    # a restored sampler's next iter() goes on from where it stands; subclasses' methods refuse NeMo's constraints
    CutSampler.load_state_dict(sampler, CutSampler.state_dict(sampler))
