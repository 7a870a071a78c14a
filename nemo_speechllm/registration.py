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

"""Makes this package's classes known to NeMo's guard of ``_target_`` entries.

NeMo 3.0 only instantiates classes whose dotted path starts with an entry of ``ALLOWED_TARGET_PREFIXES``, so that a
checkpoint of unknown origin cannot name arbitrary code. A plugin's models would save and then fail to restore. The guard
is widened by this package's own prefix and by nothing else.
"""

import importlib.abc
import importlib.util
import sys
from types import ModuleType

TARGET_PREFIX = "nemo_speechllm."
GUARD_MODULE = "nemo.core.classes.common"


def register_target_prefix() -> None:
    """Adds ``nemo_speechllm.`` to NeMo's allowed target prefixes, now or as soon as NeMo's core is imported.

    NeMo's core takes about ten seconds to import; tools that only touch manifests must not pay for it. So when NeMo is
    not loaded yet, the prefix is added right after NeMo's own import of the guard.
    """
    if GUARD_MODULE in sys.modules:
        _allow(sys.modules[GUARD_MODULE])
    elif not any(isinstance(finder, _GuardFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _GuardFinder())


def _allow(guard: ModuleType) -> None:
    if TARGET_PREFIX not in guard.ALLOWED_TARGET_PREFIXES:
        guard.ALLOWED_TARGET_PREFIXES.append(TARGET_PREFIX)


class _GuardFinder(importlib.abc.MetaPathFinder):
    """Lets the ordinary import machinery load the guard module, then adds the prefix."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != GUARD_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        execute = spec.loader.exec_module

        def execute_and_allow(module: ModuleType) -> None:
            execute(module)
            _allow(module)

        spec.loader.exec_module = execute_and_allow
        return spec
