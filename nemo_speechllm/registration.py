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

"""This package's classes in NeMo: in its guard of ``_target_`` entries, its list of models, its ``restore_from``.

NeMo 3.0 only instantiates classes whose dotted path starts with an entry of ``ALLOWED_TARGET_PREFIXES``, so that a
checkpoint of unknown origin cannot name arbitrary code. A plugin's models would save and then fail to restore. The
guard is widened by this package's own prefix and by nothing else.

``ASRModel.from_pretrained``, which NeMo's scripts call, knows the models that subclasses of ``ASRModel`` list. One is
made that lists the shipped checkpoints.

``ASRModel.restore_from`` and any other NeMo class's hand a ``.nemo`` of this package on to `SpeechLM.restore_from`,
which checks the file before anything is built of it and names what is wrong. Files of NeMo's own models go NeMo's way.
"""

import functools
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

TARGET_PREFIX = "nemo_speechllm."
GUARD_MODULE = "nemo.core.classes.common"
ASR_MODULE = "nemo.collections.asr.models.asr_model"
MODEL_MODULE = "nemo.core.classes.modelPT"


def register_target_prefix() -> None:
    """Add ``nemo_speechllm.`` to NeMo's allowed target prefixes, and the shipped checkpoints to its pretrained models.

    NeMo's core takes about ten seconds to import; tools that only touch manifests must not pay for it. So what of NeMo
    is not loaded yet is told right after NeMo's own import of it.
    """
    for name, register in ((GUARD_MODULE, _allow), (MODEL_MODULE, _hand_on_restores), (ASR_MODULE, _list_shipped)):
        if name in sys.modules:
            register(sys.modules[name])
        elif not any(isinstance(finder, _AfterImport) and finder.name == name for finder in sys.meta_path):
            sys.meta_path.insert(0, _AfterImport(name, register))


def _allow(guard: ModuleType) -> None:
    if TARGET_PREFIX not in guard.ALLOWED_TARGET_PREFIXES:
        guard.ALLOWED_TARGET_PREFIXES.append(TARGET_PREFIX)


def _list_shipped(asr: ModuleType) -> None:
    if "ShippedSpeechLMs" in vars(asr):
        return

    base: Any = asr.ASRModel

    class ShippedSpeechLMs(base):
        """No model: ``ASRModel.list_available_models`` asks subclasses, and this one answers for the speech LMs."""

        @classmethod
        def list_available_models(cls) -> list:
            from nemo_speechllm.models.loading import list_shipped_models

            return list_shipped_models()

    vars(asr)["ShippedSpeechLMs"] = (
        ShippedSpeechLMs  # held there: a class that nothing refers to is no subclass for long
    )


def _hand_on_restores(module: ModuleType) -> None:
    original = module.ModelPT.restore_from.__func__
    if getattr(original, "hands_on", False):
        return

    @functools.wraps(original)
    def restore_from(cls: type, restore_path: str | Path, *args, **kwargs):
        from nemo_speechllm.checkpointing.archive import saved_config_bytes

        checkpoint = sys.modules.get("nemo_speechllm.checkpointing.checkpoint")
        if checkpoint is not None and issubclass(cls, checkpoint.ReferencedModel):
            return original(cls, restore_path, *args, **kwargs)
        path = Path(restore_path).expanduser()
        if not path.is_file() or TARGET_PREFIX.encode() not in (saved_config_bytes(path) or b""):
            return original(cls, restore_path, *args, **kwargs)
        from nemo_speechllm.models.speech_lm import SpeechLM

        return SpeechLM.restore_from(path, *args, **kwargs)

    vars(restore_from)["hands_on"] = True
    module.ModelPT.restore_from = classmethod(restore_from)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Lets the ordinary import machinery load a module, then calls ``register`` with it."""

    def __init__(self, name: str, register: Callable[[ModuleType], None]):
        self.name = name
        self.register = register

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            self.register(module)

        loader.exec_module = execute_and_register
        return spec
