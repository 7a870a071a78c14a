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

"""What is left of a data section after its filters: a training on nothing would wait for its first batch for ever."""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar, cast

from nemo.collections.common.data.lhotse import dataloader as nemo_dataloader
from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config
from nemo.utils import logging
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset, IterableDataset

from nemo_speechllm.data.dataset import PLACE_KEY

# NeMo's, by which its dataloader leaves examples out
NEMO_FILTERS = (
    *("DurationFilter", "TokenCountFilter", "TokenPerSecondFilter", "TokenPerTokenFilter", "BucketingFilter"),
    *("ValidationStatusFilter", "CERFilter", "ContextSpeakerSimilarityFilter"),
)
TOO_FEW_TO_BUCKET = "number of buckets"  # in what Lhotse says of it
TOLD_OF_EACH = 10  # examples named one by one; then at every power of ten
# settings of a data section by which NeMo or Lhotse leave rows out, and what goes with each of them
FILTERS: dict[str, dict[str, Any]] = {
    **{f"{bound}_{what}": {} for what in ("duration", "tokens", "tps", "tpt") for bound in ("min", "max")},
    "max_cer": {},
    "min_context_speaker_similarity": {},
    "keep": {},
    "drop_last": {},
    "bucket_batch_size": {"bucket_duration_bins": None, "use_bucketing": False, "batch_size": 1},
}
# the same rows, once, by the shortest way to the first batch
ONCE = {
    "force_finite": True,
    "shuffle": False,
    "concurrent_bucketing": False,
    "bucket_buffer_size": 100,
    "num_workers": 0,
}


class _Telling:
    """A filter of NeMo's that says what it leaves out, each example once in a process."""

    left_out: ClassVar[dict[str, set[str]]] = defaultdict(set)

    def __call__(self, example: Any) -> bool:
        kept = super().__call__(example)  # type: ignore[misc]
        if not kept:
            self._tell(str((getattr(example, "custom", None) or {}).get(PLACE_KEY) or example.id))
        return kept

    def _tell(self, name: str) -> None:
        settings = ", ".join(f"{key}={value}" for key, value in vars(self).items() if key != "enabled")
        what = f"{type(self).__name__}({settings})"
        names = self.left_out[what]
        if name not in names:
            names.add(name)
            if len(names) <= TOLD_OF_EACH or math.log10(len(names)).is_integer():
                logging.warning(f"{name} is left out by NeMo's {what}, {len(names)} examples so far")


def tell_of_filters() -> None:
    """Let the filters of NeMo's dataloader, which are silent, name and count what they leave out."""
    for name in NEMO_FILTERS:
        original = getattr(nemo_dataloader, name)
        if not issubclass(original, _Telling):
            setattr(nemo_dataloader, name, type(name, (_Telling, original), {}))


def check_not_empty(cfg: DictConfig, dataset: Dataset, tokenizer: Any) -> None:
    """Refuse data that give not one batch.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section for NeMo's Lhotse dataloader.
        dataset, tokenizer: as that dataloader takes them.

    Raises:
        ValueError: the section gives not one batch; the message names the data and the filters.
    """
    tell_of_filters()
    for section in _sections(cfg):
        if _has_batch(section, dataset, tokenizer):
            continue
        given = [name for name in FILTERS if section.get(name) not in (None, False)]
        guilty = [name for name in given if _has_batch(_without(section, name), dataset, tokenizer)]
        settings = ", ".join(f"{name}={section[name]}" for name in guilty or given)
        source = (
            section.get("manifest_filepath")
            or section.get("input_cfg")
            or section.get("cuts_path")
            or "the data section"
        )
        raise ValueError(
            f"{source}: no row is left"
            + (
                f", all are filtered out by {settings}; change that, or give other data"
                if settings
                else "; give other data"
            )
        )


def _sections(cfg: DictConfig) -> Iterator[DictConfig]:
    """Yield the section itself, or those of ``multi_config``, each with what they have in common."""
    if not cfg.get("multi_config"):
        yield cfg
        return
    parts = {name: part for name, part in cfg.items() if isinstance(part, DictConfig)}
    common = {name: value for name, value in cfg.items() if name not in parts and name != "multi_config"}
    for part in parts.values():
        yield cast(DictConfig, OmegaConf.merge(common, part))


def _without(cfg: DictConfig, name: str) -> DictConfig:
    kept = {key: value for key, value in cfg.items() if key != name}
    return cast(DictConfig, OmegaConf.merge(kept, FILTERS.get(name, {})))


def _has_batch(cfg: DictConfig, dataset: Dataset, tokenizer: Any) -> bool:
    once = OmegaConf.merge(cfg, ONCE)
    try:
        dataloader = get_lhotse_dataloader_from_config(once, 0, 1, dataset, tokenizer)
        of_stream = isinstance(dataloader.dataset, IterableDataset)
        sampler = dataloader.dataset.sampler if of_stream else dataloader.sampler
        return next(iter(sampler), None) is not None
    except AssertionError as error:  # Lhotse's, that there are as many recordings as buckets
        if TOO_FEW_TO_BUCKET not in str(error):
            raise
        return _has_batch(_without(cfg, "use_bucketing"), dataset, tokenizer)
