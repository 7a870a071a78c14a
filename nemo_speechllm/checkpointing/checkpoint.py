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

"""What a checkpoint of a speech LM holds: what was trained, and references to what was not.

A frozen LLM or encoder is saved as a reference (its name or path, and a fingerprint of its weights) as long as its
weights are those of the reference and its section does not say ``embed: true``. Lightning ``.ckpt`` files and
``.nemo`` files follow the same rule.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Trainer
from nemo.core.classes import ModelPT
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from nemo.utils import AppState, logging
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nemo_speechllm import assets
from nemo_speechllm.checkpointing.archive import WEIGHTS_NAME
from nemo_speechllm.checkpointing.config import REFERENCES, clean_json
from nemo_speechllm.checkpointing.errors import DOWNLOAD_AGAIN, CheckpointError, abridged, failures_named
from nemo_speechllm.checkpointing.kept_files import KeptFiles
from nemo_speechllm.checkpointing.limits import limited_parameters
from nemo_speechllm.checkpointing.renamed import with_current_names
from nemo_speechllm.checkpointing.restoring import (
    CheckedFolder,
    artifact_path,
    check_fit,
    checked_folder,
    inert_config_of_ckpt,
    is_nemo_file_being_restored,
    read_checked,
    referenced_bytes,
)
from nemo_speechllm.modules.fingerprint import is_adapter_key, matches_fingerprint, weight_fingerprint
from nemo_speechllm.modules.llm import has_merged_lora
from nemo_speechllm.modules.quantization import is_int8
from nemo_speechllm.recipes import as_config
from nemo_speechllm.versions import warn_of_untested_versions

TOKENIZERS = ("tokenizer.json", "tokenizer.model")
LLM_ARTIFACTS = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *TOKENIZERS,
    "chat_template.jinja",
)


class ReferencedModel(ModelPT):
    """A model that saves pretrained parts by reference and restores strictly.

    A subclass calls `add_reference` for each pretrained part it builds, and asks `restores_weights_of` whether the
    checkpoint being restored brings that part's weights.

    A checkpoint may be anybody's. Its file and config are checked before anything is built (`archive`), and a restored
    model has no data until the caller gives them (`setup_training_data` and its like, or dataloaders).
    """

    reference_sections: ClassVar[tuple[str, ...]] = REFERENCES  # of its config, which may name frozen parts

    def __init__(self, cfg: DictConfig, trainer: Trainer | None = None):
        if is_nemo_file_being_restored() and checked_folder.get() is None:
            raise CheckpointError(
                f"{AppState().model_restore_path} holds a {type(self).__name__}; restore it with "
                f"{type(self).__name__}.restore_from"
            )
        self._is_setting_up = False
        self.kept_files = KeptFiles(self)
        super().__init__(self.inert_config(cfg), trainer)

    @classmethod
    def inert_config(cls, cfg: DictConfig | dict) -> DictConfig:
        """Return a config as it may be read: that of a Lightning checkpoint checked, and without data and caches.

        Nothing of a config may be resolved before. (A ``.nemo``'s is checked when the file is read.)

        Raises:
            CheckpointError: an entry of a Lightning checkpoint's config would read, run or take too much.
        """
        config = as_config(cfg)
        from_ckpt = cls._is_model_being_restored() and not is_nemo_file_being_restored()
        return inert_config_of_ckpt(config) if from_ckpt else config

    @classmethod
    def from_config_dict(cls, config: DictConfig, trainer: Trainer | None = None) -> "ReferencedModel":
        """Return a model of this class.

        NeMo's method tries twice where that fails, and hides the first error.
        """
        return cls(cfg=config, trainer=trainer)

    # a restored model has no data ------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Set up as NeMo does, which asks for the dataloaders before it makes them."""
        self._is_setting_up = True
        try:
            super().setup(stage)
        finally:
            self._is_setting_up = False

    def train_dataloader(self) -> DataLoader | None:
        """Return NeMo's dataloader.

        Raises:
            ValueError: there are no training data, as in a model that was just restored.
        """
        return self._given(super().train_dataloader(), "training", "fit")

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return NeMo's dataloaders.

        Raises:
            ValueError: it is validated, and there are no validation data, as in a model that was just restored.
        """
        return self._given(super().val_dataloader(), "validation", "validate")

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return NeMo's dataloaders.

        Raises:
            ValueError: it is tested, and there are no test data, as in a model that was just restored.
        """
        return self._given(super().test_dataloader(), "test", "test")

    def _given(self, dataloader: Any, kind: str, method: str) -> Any:
        called = self._trainer is not None and self._trainer.state.fn == method and not self._is_setting_up
        if called and (dataloader is None or dataloader == []):
            raise ValueError(
                f"this {type(self).__name__} has no {kind} data: those of a checkpoint are not read. Call "
                f"model.setup_{kind}_data(config) first, or give dataloaders to trainer.{method}"
            )
        return dataloader

    # pretrained parts ------------------------------------------------------------------------------------------------

    @property
    def references(self) -> dict[str, DictConfig]:
        """Parameter-name prefix of each pretrained part → its config section."""
        if not hasattr(self, "_references"):
            self._references: dict[str, DictConfig] = {}
        return self._references

    @property
    def pretrained_parts(self) -> set[str]:
        """Parameter-name prefixes of all pretrained parts, whether this checkpoint refers to them or holds them."""
        if not hasattr(self, "_pretrained_parts"):
            self._pretrained_parts: set[str] = set()
        return self._pretrained_parts

    def restores_weights_of(self, section: DictConfig) -> bool:
        """Return whether a ``.nemo`` being restored holds a part's weights: its reference need not be found then."""
        return is_nemo_file_being_restored() and section.by_reference is False

    def add_reference(self, prefix: str, section: DictConfig) -> None:
        """Declare the submodule at ``prefix`` as a pretrained part.

        Args:
            prefix: of its parameters' names.
            section: of the config; has ``pretrained`` and ``fingerprint``.

        Raises:
            CheckpointError: the weights that were loaded are not those the checkpoint was trained with.
        """
        self.pretrained_parts.add(prefix)
        if section.pretrained is None or self.restores_weights_of(section):
            return
        part = self.get_submodule(prefix)
        fingerprint = weight_fingerprint(part, assets.weight_files(section.pretrained))
        expected = section.fingerprint
        if (
            self._is_model_being_restored()
            and expected is not None
            and not matches_fingerprint(part, expected, fingerprint)
        ):
            raise CheckpointError(
                f"model.{prefix}.pretrained={section.pretrained} holds other weights (fingerprint {fingerprint}) than "
                f"those this checkpoint was trained with ({expected}); pass restore_from an override that points it "
                "at the original"
            )
        with open_dict(section):
            section.fingerprint = fingerprint
            if Path(section.pretrained).expanduser().exists():  # a checkpoint is read in other folders than this
                section.pretrained = str(Path(section.pretrained).expanduser().absolute())
        self.references[prefix] = section

    def _is_saved_by_reference(self, prefix: str, section: DictConfig) -> bool:
        if self.cfg.save_full or section.embed:
            return False
        part = self.get_submodule(prefix)
        frozen = all(not p.requires_grad for name, p in part.named_parameters() if not is_adapter_key(name))
        return frozen and weight_fingerprint(part) == section.fingerprint

    def state_dict(self, *args, prefix: str = "", **kwargs) -> dict[str, Tensor]:
        """Return all weights but those of parts that are saved by reference."""
        state = super().state_dict(*args, prefix=prefix, **kwargs)
        for part, section in self.references.items():
            by_reference = self._is_saved_by_reference(part, section)
            with open_dict(section):
                section.by_reference = by_reference
            if by_reference:
                for name in [n for n in state if n.startswith(f"{prefix}{part}.") and not is_adapter_key(n)]:
                    del state[name]
        return state

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False):
        """Load strictly, except that a part may be missing as a whole where it was loaded from its reference.

        Raises:
            CheckpointError: keys are missing or unexpected, have another shape, or values that are no finite numbers;
                they are named.
        """
        state_dict = with_current_names(state_dict)
        expected = nn.Module.state_dict(self)
        check_fit(self, state_dict)
        result = nn.Module.load_state_dict(self, state_dict, strict=False, assign=assign)
        missing = set(result.missing_keys)
        for prefix in self.references:
            keys = {n for n in expected if n.startswith(f"{prefix}.") and not is_adapter_key(n)}
            if not keys & set(state_dict):
                missing -= keys
        if strict and (missing or result.unexpected_keys):
            raise CheckpointError(
                f"the checkpoint does not fit this {type(self).__name__}: missing {abridged(sorted(missing))}, "
                f"unexpected {abridged(sorted(result.unexpected_keys))}; the config must be the one it was trained "
                "with"
            )
        result.missing_keys[:] = sorted(missing)
        if missing or result.unexpected_keys:
            logging.warning(
                f"loaded what fits this {type(self).__name__}; missing {abridged(sorted(missing))}, "
                f"left out {abridged(sorted(result.unexpected_keys))}"
            )
        return result

    def register_llm_artifacts(self, folder: Path | None) -> Path:
        """Put the LLM's config and tokenizer files into every ``.nemo``; return a folder that holds them.

        Args:
            folder: the LLM's own folder; None while a ``.nemo`` is restored whose files are used instead.

        Raises:
            CheckpointError: there is neither.
        """
        if is_nemo_file_being_restored() and self.cfg.get("artifacts"):
            return self._unpack_llm_artifacts()
        if folder is None:
            raise CheckpointError("the config names no artifacts, and the checkpoint refers to no LLM that has them")
        with open_dict(self.cfg):
            self.cfg.artifacts = {}
        for name in LLM_ARTIFACTS:
            if (folder / name).is_file():
                self.register_artifact(f"artifacts.{_artifact_key(name)}", str(folder / name))
        return folder

    def _unpack_llm_artifacts(self) -> Path:
        """Give the files of a ``.nemo`` their own names back, in a folder that lives as long as the model."""
        self._artifact_folder = tempfile.TemporaryDirectory(prefix="nemo_speechllm_")
        folder = Path(self._artifact_folder.name)
        unpacked = self.cfg.artifacts
        with open_dict(self.cfg):
            self.cfg.artifacts = {}
        for name in LLM_ARTIFACTS:
            if _artifact_key(name) in unpacked:
                source = artifact_path(unpacked[_artifact_key(name)])
                # the unpacked .nemo vanishes after the restore; a later save must find the file
                shutil.copyfile(source, folder / name)
                if name.endswith("config.json") or name == "special_tokens_map.json":
                    clean_json(folder / name)
                self.register_artifact(f"artifacts.{_artifact_key(name)}", str(folder / name))
        if not any((folder / name).exists() for name in TOKENIZERS):
            raise CheckpointError(f"it holds no tokenizer of its LLM ({' or '.join(TOKENIZERS)}). {DOWNLOAD_AGAIN}")
        return folder

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the model's files to a Lightning checkpoint."""
        super().on_save_checkpoint(checkpoint)
        self.kept_files.add_to_ckpt(checkpoint)

    def save_to(self, save_path: str | Path) -> None:
        """Write a ``.nemo``, as which the file must be named; a killed save leaves nothing under the final name."""
        save_path = Path(save_path).expanduser().absolute()
        if save_path.suffix != ".nemo":
            raise CheckpointError(f"{save_path}: a checkpoint's name must end in .nemo")
        if is_int8(self):
            raise CheckpointError(f"{save_path}: weights of 8 bits are not saved; save the model loaded without int8:")
        if has_merged_lora(self, self.cfg.get("lora")):
            raise CheckpointError(f"{save_path}: merged LoRA is not saved; save a model loaded without answers_only")
        self.state_dict()  # decides which parts go by reference before the config is written
        super().save_to(save_path)

    @classmethod
    def restore_from(
        cls,
        restore_path: str | Path,
        override_config_path: str | DictConfig | None = None,
        map_location: torch.device | None = None,
        strict: bool = True,
        return_config: bool = False,
        save_restore_connector: SaveRestoreConnector | None = None,
        trainer: Trainer | None = None,
        validate_access_integrity: bool = True,
        override: dict | DictConfig | None = None,
    ):
        """Restore a ``.nemo``, as NeMo's method does, with one addition.

        The model is of the class that the file names.

        The file may be anybody's: it is checked before anything is built of it, nothing in it is run, no file but the
        frozen parts it refers to is read, and the data it was trained on are not among its settings.

        Args:
            restore_path: the file.
            save_restore_connector: not used; files of this package are unpacked by it.
            override: changes merged into the saved config, e.g. ``{"llm": {"pretrained": "/new/place"}}`` for an LLM
                that has moved. (``override_config_path`` replaces the whole config.)

        Raises:
            CheckpointError: the file is missing, damaged, of another model class, or its frozen LLM cannot be found;
                whatever it is, the message names the file, the cause and the remedy.
        """
        warn_of_untested_versions()
        restore_path = Path(restore_path).expanduser()
        with failures_named(restore_path), tempfile.TemporaryDirectory(prefix="nemo_speechllm_") as folder:
            config: DictConfig | str
            saved_class, config, n_tensors = read_checked(cls, restore_path, Path(folder), config_only=return_config)
            if override is not None:
                config = cast(DictConfig, OmegaConf.merge(config, override))
            elif override_config_path is not None:
                config = override_config_path
            if return_config:
                return config
            size = (Path(folder) / WEIGHTS_NAME).stat().st_size + referenced_bytes(
                config, saved_class.reference_sections
            )
            token = checked_folder.set(Path(folder))
            try:
                with limited_parameters(size, n_tensors):
                    model = super(ReferencedModel, saved_class).restore_from(
                        str(restore_path),
                        config,
                        map_location=map_location,
                        strict=strict,
                        save_restore_connector=CheckedFolder(Path(folder)),
                        trainer=trainer,
                        validate_access_integrity=validate_access_integrity,
                    )
            finally:
                checked_folder.reset(token)
                cls._set_model_restore_state(is_being_restored=False)
                saved_class.update_save_restore_connector(SaveRestoreConnector())
            model._save_restore_connector = SaveRestoreConnector()
            return model


def _artifact_key(name: str) -> str:
    return name.replace(".", "_")
