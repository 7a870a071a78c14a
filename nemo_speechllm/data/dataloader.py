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

"""From a data section of a recipe to batches: its sources are checked, then NeMo's Lhotse dataloader reads them."""

from typing import cast

from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.data.filters import TOO_FEW_TO_BUCKET, check_not_empty
from nemo_speechllm.data.sampling import PROMPT_FORMAT, TextTokenizer, has_bins_of_answers
from nemo_speechllm.data.sources import check_sources


def build_dataloader(
    cfg: DictConfig, dataset: ConversationDataset, tokenizer, global_rank: int, world_size: int
) -> DataLoader:
    """Return NeMo's Lhotse dataloader over any input NeMo reads: manifests, tarred, Shar, multimodal conversations.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section as NeMo documents it for Lhotse.
        dataset: turns sampled examples into batches.
        tokenizer: Hugging Face tokenizer, used where the section asks for batching by tokens. With
            ``use_multimodal_sampling`` the text of the whole conversation counts, also for ``max_tps``; with pairs
            of seconds and tokens as ``bucket_duration_bins`` the answer alone, as for NeMo's OOMptimizer.

    Raises:
        FileNotFoundError: a manifest, or an audio file that a plain manifest names, does not exist.
        ValueError: the section is one that NeMo would misread, a manifest line is broken, or filters leave nothing.
    """
    cfg = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))
    check_sources(cfg, dataset.builder, dataset.skip_bad_audio)
    cfg.pop("skip_bad_audio", None)
    cfg.pop("defer_setup", None)
    text_tokenizer, counts_all = None, cfg.get("use_multimodal_sampling")
    if counts_all and cfg.get("token_equivalent_duration") is None:
        raise ValueError(
            "use_multimodal_sampling needs token_equivalent_duration: the seconds of audio that one of the LLM's "
            "positions stands for, e.g. 0.08"
        )
    if cfg.get("use_multimodal_sampling") or has_bins_of_answers(cfg):
        cfg.prompt_format = PROMPT_FORMAT
        text_tokenizer = TextTokenizer(
            dataset.builder, tokenizer, answers_alone=not cfg.get("use_multimodal_sampling")
        )
    try:
        check_not_empty(cfg, dataset, text_tokenizer)
        return get_lhotse_dataloader_from_config(
            cfg, global_rank=global_rank, world_size=world_size, dataset=dataset, tokenizer=text_tokenizer
        )
    except AssertionError as error:  # Lhotse's, without a word of what to do
        if TOO_FEW_TO_BUCKET not in str(error):
            raise
        raise ValueError(
            f"{error} There are too few recordings to bucket: set use_bucketing=false in the data section"
        ) from error
