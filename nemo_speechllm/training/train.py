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

"""A training as a recipe describes it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from nemo.collections.asr.models import EncDecCTCModelBPE
from nemo.core.classes import ModelPT
from nemo.utils import logging
from nemo.utils.exp_manager import exp_manager
from nemo.utils.get_rank import is_global_rank_zero
from nemo.utils.model_utils import import_class_by_path
from nemo.utils.trainer_utils import resolve_trainer_cfg
from omegaconf import DictConfig, OmegaConf, open_dict

from nemo_speechllm.command_line import nearest_of
from nemo_speechllm.files import FolderLock
from nemo_speechllm.recipes import complete
from nemo_speechllm.recipes.kinds import check_kinds
from nemo_speechllm.recipes.models import CTCRecipe
from nemo_speechllm.training.resume import check_strategy, resumable
from nemo_speechllm.training.run_folder import claim_run_folder, find_resume_point, run_folder

RECIPE_KEYS = (
    *("name", "seed", "model", "trainer", "exp_manager"),
    *("init_from_nemo_model", "init_from_pretrained_model", "init_from_ptl_ckpt"),
)


def model_class(target: str) -> type[ModelPT]:
    """Return the class a recipe names: one of this package's models, or one of NeMo's own.

    Raises:
        ValueError: it is neither.
    """
    if not target.startswith(("nemo_speechllm.", "nemo.")):
        raise ValueError(f"model.target is {target!r}; a recipe trains classes of nemo_speechllm or of nemo")
    return import_class_by_path(target)


def missing_keys(settings: dict | list, above: str = "") -> Iterator[str]:
    """Yield the full key of everything that a recipe, as plain containers, leaves to who trains it.

    Interpolations are not followed, so each stands once, where it can be given.
    """
    for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        if isinstance(value, dict | list):
            yield from missing_keys(value, f"{above}{key}.")
        elif value == "???":
            yield f"{above}{key}"


def check_top_level(cfg: DictConfig) -> None:
    """Check that nothing beside a recipe's own sections was added with ``+``: nobody would read it.

    Raises:
        ValueError: a key is unknown; the nearest known one is named.
    """
    for key in map(str, cfg):
        if key not in RECIPE_KEYS:
            raise ValueError(f"a recipe has no {key!r}, so nothing would read it; {nearest_of(key, RECIPE_KEYS)}")


def check_model(settings: DictConfig, model: type[ModelPT]) -> None:
    """Check the ``model`` section; of a class of NeMo's own whose recipe is not known here, NeMo does.

    Raises:
        SettingError: a setting is unknown, missing or cannot be.
    """
    recipe = CTCRecipe if model is EncDecCTCModelBPE else getattr(model, "recipe", None)
    if recipe is not None:
        complete(recipe, settings)


def overrides_of(changes: dict[str, Any]) -> list[str]:
    """Return settings as a command line has them: ``key=value``, the value as JSON."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]


def read_recipe(folders: Sequence[Path], name: str, changes: dict[str, Any]) -> DictConfig:
    """Return a recipe with changes, as ``train.py --config-name=NAME KEY=VALUE …`` has it.

    Args:
        folders: of recipes; the first one that has the recipe counts, what it builds upon may be in any.
        name: of the recipe's file, without ``.yaml``.
        changes: of its settings by key; ``+KEY`` adds one.

    Raises:
        HydraException: there is no such recipe, or a key is not in it.
        SettingError: a change puts something else in the place of a number, or of true or false.
    """
    resolved = [folder.resolve() for folder in folders]
    holder = next((folder for folder in resolved if (folder / f"{name}.yaml").exists()), resolved[0])
    searched = {"hydra.searchpath": [f"file://{folder}" for folder in resolved if folder != holder]}
    with _without_hydra(), initialize_config_dir(str(holder), version_base=None):
        changed = compose(name, overrides_of(searched | changes))
        check_kinds(compose(name, overrides_of(searched)), changed)
    return changed


@contextmanager
def _without_hydra() -> Iterator[None]:
    """Set aside the Hydra of the script that runs, beside which it allows no second one."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def train(cfg: DictConfig) -> None:
    """Train the model that a recipe describes; a training that was killed is taken up.

    Raises:
        ValueError: a setting is missing, unknown or cannot be, or the run folder holds another training.
        FolderInUse: another process trains there.
    """
    check_top_level(cfg)
    settings = cast(dict, OmegaConf.to_container(cfg, resolve=False))
    if missing := list(missing_keys(settings)):
        raise ValueError(f"the recipe leaves {len(missing)} settings to you; give {'=... '.join(missing)}=...")
    OmegaConf.resolve(cfg)
    model_type = model_class(cfg.model.target)
    check_model(cfg.model, model_type)
    with open_dict(cfg):
        for key in [key for key in cfg if str(key).startswith("init_from") and cfg[key] is None]:
            cfg.pop(key)  # NeMo counts a null entry as one
    pl.seed_everything(cfg.get("seed", 0), workers=True)
    logging.info(f"config:\n{OmegaConf.to_yaml(cfg)}")
    trainer = pl.Trainer(**resolve_trainer_cfg(cfg.trainer))
    check_strategy(trainer.strategy)
    with ExitStack() as held:
        if OmegaConf.select(cfg, "exp_manager.resume_if_exists"):
            if is_global_rank_zero():  # for all processes of this training
                held.enter_context(FolderLock(run_folder(trainer, cfg.exp_manager) / "checkpoints", "training"))
            find_resume_point(trainer, cfg.exp_manager)
        folder = exp_manager(trainer, cfg.get("exp_manager"))
        if folder is not None:
            claim_run_folder(Path(folder) / "checkpoints", cfg.model)
        model = resumable(model_type)(cfg.model, trainer)
        model.maybe_init_from_pretrained_checkpoint(cfg)
        trainer.fit(model)
