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

A frozen LLM or encoder is saved as a reference (its name or path, and a fingerprint of its weights) as long as its weights
are those of the reference and its section does not say ``embed: true``. Lightning ``.ckpt`` files and ``.nemo`` files follow the same rule.
"""

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from nemo.core.classes import ModelPT
from nemo.utils import AppState, logging
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from nemo_speechllm import assets
from nemo_speechllm.modules.fingerprint import is_adapter_key, weight_fingerprint
from nemo_speechllm.versions import warn_of_untested_versions

LLM_ARTIFACTS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not fit; the message names the file and the remedy."""


class ReferencedCheckpointMixin(ModelPT):
    """Saves pretrained parts by reference and restores strictly.

    A subclass calls `add_reference` for each pretrained part it builds, and asks `restores_weights_of` whether the
    checkpoint being restored brings that part's weights.
    """

    @property
    def references(self) -> dict[str, DictConfig]:
        """Parameter-name prefix of each pretrained part → its config section."""
        if not hasattr(self, "_references"):
            self._references = {}
        return self._references

    @property
    def pretrained_parts(self) -> set[str]:
        """Parameter-name prefixes of all pretrained parts, whether this checkpoint refers to them or holds them."""
        if not hasattr(self, "_pretrained_parts"):
            self._pretrained_parts = set()
        return self._pretrained_parts

    def restores_weights_of(self, section: DictConfig) -> bool:
        """Whether a ``.nemo`` being restored holds this part's weights, so that its reference need not be found."""
        return _is_nemo_file_being_restored() and section.get("by_reference") is False

    def add_reference(self, prefix: str, section: DictConfig) -> None:
        """Declares the submodule at ``prefix`` as a pretrained part whose section has ``pretrained`` and ``fingerprint``.

        Raises:
            CheckpointError: the weights that were loaded are not those the checkpoint was trained with.
        """
        self.pretrained_parts.add(prefix)
        if section.get("pretrained") is None or self.restores_weights_of(section):
            return
        found = weight_fingerprint(self.get_submodule(prefix))
        expected = section.get("fingerprint")
        if self._is_model_being_restored() and expected not in (None, found):
            raise CheckpointError(
                f"model.{prefix}.pretrained={section.pretrained} holds other weights (fingerprint {found}) than those this "
                f"checkpoint was trained with ({expected}); pass restore_from an override that points it at the original"
            )
        with open_dict(section):
            section.fingerprint = found
        self.references[prefix] = section

    def _is_saved_by_reference(self, prefix: str, section: DictConfig) -> bool:
        if self.cfg.get("save_full", False) or section.get("embed", False):
            return False
        part = self.get_submodule(prefix)
        frozen = all(not p.requires_grad for name, p in part.named_parameters() if not is_adapter_key(name))
        return frozen and weight_fingerprint(part) == section.fingerprint

    def state_dict(self, *args, prefix: str = "", **kwargs) -> dict[str, Tensor]:
        """All weights but those of parts that are saved by reference."""
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
        """Strict, except that a part may be missing as a whole where it was loaded from its reference.

        Raises:
            CheckpointError: keys are missing or unexpected, or have another shape; they are named.
        """
        own = nn.Module.state_dict(self)
        reshaped = [
            f"{name} (saved {tuple(tensor.shape)}, here {tuple(own[name].shape)})"
            for name, tensor in state_dict.items()
            if name in own and own[name].shape != tensor.shape
        ]
        if reshaped:
            raise CheckpointError(
                f"the checkpoint does not fit this {type(self).__name__}: {_abridged(reshaped)}; sizes such as lora.r and "
                "perception.adapter.d_model must be those it was trained with"
            )
        result = nn.Module.load_state_dict(self, state_dict, strict=False, assign=assign)
        missing = set(result.missing_keys)
        for prefix in self.references:
            keys = {n for n in own if n.startswith(f"{prefix}.") and not is_adapter_key(n)}
            if not keys & set(state_dict):
                missing -= keys
        if strict and (missing or result.unexpected_keys):
            raise CheckpointError(
                f"the checkpoint does not fit this {type(self).__name__}: missing {_abridged(sorted(missing))}, "
                f"unexpected {_abridged(sorted(result.unexpected_keys))}; the config must be the one it was trained with"
            )
        result.missing_keys[:] = sorted(missing)
        if missing or result.unexpected_keys:
            logging.warning(
                f"loaded what fits this {type(self).__name__}; missing {_abridged(sorted(missing))}, "
                f"left out {_abridged(sorted(result.unexpected_keys))}"
            )
        return result

    def register_llm_artifacts(self, folder: Path) -> Path:
        """Puts the LLM's config and tokenizer files into every ``.nemo``; returns a folder that holds them.

        Args:
            folder: the LLM's own folder. While a ``.nemo`` is restored the files in it are used instead.
        """
        if _is_nemo_file_being_restored() and self.cfg.get("artifacts"):
            return self._unpack_llm_artifacts()
        with open_dict(self.cfg):
            self.cfg.artifacts = {}
        for name in LLM_ARTIFACTS:
            if (folder / name).is_file():
                self.register_artifact(f"artifacts.{_artifact_key(name)}", str(folder / name))
        return folder

    def _unpack_llm_artifacts(self) -> Path:
        """Gives the files of a ``.nemo`` their own names back, in a folder that lives as long as the model."""
        self._artifact_folder = tempfile.TemporaryDirectory(prefix="nemo_speechllm_")
        folder = Path(self._artifact_folder.name)
        unpacked = self.cfg.artifacts
        with open_dict(self.cfg):
            self.cfg.artifacts = {}
        for name in LLM_ARTIFACTS:
            if _artifact_key(name) in unpacked:
                source = Path(AppState().nemo_file_folder) / unpacked[_artifact_key(name)].removeprefix("nemo:")
                # the unpacked .nemo vanishes after the restore; a later save must find the file
                shutil.copyfile(source, folder / name)
                self.register_artifact(f"artifacts.{_artifact_key(name)}", str(folder / name))
        return folder

    @staticmethod
    def is_nemo_file_being_restored() -> bool:
        """False for a Lightning ``.ckpt``, which has no artifacts."""
        return _is_nemo_file_being_restored()

    @staticmethod
    def read_artifact(reference: str) -> bytes:
        """Content of a file inside the ``.nemo`` that is being restored; ``reference`` is what its config calls it."""
        return (Path(AppState().nemo_file_folder) / reference.removeprefix("nemo:")).read_bytes()

    def keep_file(self, key: str, name: str, content: bytes) -> Path:
        """Puts a file into every ``.nemo``; returns a copy of it that lives as long as the model.

        Args:
            key: where the config says what it is called, e.g. ``tokenizer.model_file``.
            name: of the copy.
        """
        self._kept_files = tempfile.TemporaryDirectory(prefix="nemo_speechllm_")  # a later save must find the file
        path = Path(self._kept_files.name) / name
        path.write_bytes(content)
        OmegaConf.update(self.cfg, key, None, force_add=True)
        self.register_artifact(key, str(path))
        return path

    def save_to(self, save_path: str | Path) -> None:
        """Writes a ``.nemo``. A killed or failing save leaves nothing under the final name.

        Args:
            save_path: file name, must end in ``.nemo``.
        """
        save_path = Path(save_path).expanduser().absolute()
        if save_path.suffix != ".nemo":
            raise CheckpointError(f"{save_path}: a checkpoint's name must end in .nemo")
        self.state_dict()  # decides which parts go by reference before the config is written
        super().save_to(save_path)

    @classmethod
    def restore_from(
        cls,
        restore_path: str | Path,
        override_config_path: str | DictConfig | None = None,
        *args,
        override: dict | DictConfig | None = None,
        **kwargs,
    ):
        """Restores a ``.nemo``, as NeMo's method does, with one addition.

        Args:
            restore_path: the file.
            override: changes merged into the saved config, e.g. ``{"llm": {"pretrained": "/new/place"}}`` for an LLM that
                has moved. (``override_config_path`` replaces the whole config.)

        Raises:
            CheckpointError: the file is missing, damaged, of another model class, or its frozen LLM cannot be found.
        """
        warn_of_untested_versions()
        restore_path = Path(restore_path).expanduser()
        if not restore_path.is_file():
            raise CheckpointError(f"checkpoint {restore_path} does not exist")
        try:
            config = cls._saved_config(restore_path)
            cls._check_class(config, restore_path)
            if override is not None:
                override_config_path = OmegaConf.merge(config, override)
            if kwargs.get("return_config"):
                return override_config_path or config
            return super().restore_from(str(restore_path), override_config_path, *args, **kwargs)
        except (tarfile.TarError, EOFError, KeyError) as error:
            raise CheckpointError(
                f"{restore_path} is not a whole .nemo file ({type(error).__name__}: {error}); copy or download it again"
            ) from error
        except assets.AssetError as error:
            raise CheckpointError(
                f"{restore_path} refers to a pretrained part that cannot be found: {error}. If it has moved, pass "
                'override={"llm": {"pretrained": "/new/place"}} to restore_from (or '
                'override={"perception": {"encoder": {"pretrained": "/new/place"}}})'
            ) from error
        finally:
            cls._set_model_restore_state(is_being_restored=False)

    @staticmethod
    def _saved_config(restore_path: Path) -> DictConfig:
        with tarfile.open(restore_path) as archive:
            members = {os.path.basename(member.name): member for member in archive.getmembers()}
            return OmegaConf.create(archive.extractfile(members["model_config.yaml"]).read().decode())

    @classmethod
    def _check_class(cls, config: DictConfig, restore_path: Path) -> None:
        from nemo.utils.model_utils import import_class_by_path

        target = config.get("target", "")
        saved_class = import_class_by_path(target) if target.startswith("nemo_speechllm.") else None
        if saved_class is None or not issubclass(saved_class, cls):
            raise CheckpointError(
                f"{restore_path} holds a {target or 'model of unknown class'}, not a {cls.__name__}; restore it with that class"
            )


def _is_nemo_file_being_restored() -> bool:
    """False for a Lightning ``.ckpt``, which has no artifacts: its tokenizer is read from the LLM's folder."""
    return AppState().is_model_being_restored and AppState().nemo_file_folder is not None


def _artifact_key(name: str) -> str:
    return name.replace(".", "_")


def _abridged(names: list[str]) -> str:
    return f"{names[:5]}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
