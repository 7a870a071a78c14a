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

"""What a recipe does to its training batches: each transform takes a batch and the epoch and gives another batch."""

from collections.abc import Callable

from omegaconf import DictConfig

from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.data.keywords import Vocabulary, read_keywords
from nemo_speechllm.manifests.rows import answer_of
from nemo_speechllm.recipes import sections
from nemo_speechllm.training.instruction_sampling import InstructionSampler
from nemo_speechllm.training.keyword_context import KeywordContext

Vocabularies = dict[str | None, Vocabulary]
Transform = Callable[[ConversationBatch, int], ConversationBatch]


def training_transforms(cfg: DictConfig, train_ds: DictConfig) -> list[Transform]:
    """Return the transforms of a recipe, in the order they apply: keywords stand beside the instruction drawn.

    Args:
        cfg: the recipe's ``model`` section, whole.
        train_ds: the training data, whose words are the distractors where ``keyword_context.vocabulary`` names no
            file.

    Raises:
        ValueError: a section is wrong, or the training data are of a kind whose words cannot be counted.
    """
    transforms: list[Transform] = []
    if cfg.instruction_sampling:
        transforms.append(InstructionSampler(cfg.instruction_sampling))
    if cfg.keyword_context:
        transforms.append(KeywordContext(cfg.keyword_context, *_vocabularies(cfg.keyword_context, train_ds)))
    return transforms


def _vocabularies(cfg: sections.KeywordContext, train_ds: DictConfig) -> tuple[Vocabularies, Vocabularies]:
    """Return what distractors are drawn from, and the training answers, which tell what is rare; both by language.

    The data are not read where a file gives the distractors and any word is rare enough.
    """
    if cfg.vocabulary is None:
        corpora = _corpora(train_ds)
        return corpora, corpora
    words = Vocabulary.of_texts(read_keywords(cfg.vocabulary))
    corpora = {} if cfg.max_count is None else _corpora(train_ds)
    return {language: words for language in (None, *corpora)}, corpora


def _corpora(train_ds: DictConfig) -> Vocabularies:
    from nemo_speechllm.data.sources import manifest_rows  # imports NeMo's collections, which takes seconds

    answers: dict[str | None, list[str]] = {}
    for row in manifest_rows(train_ds):
        language = row.get("target_lang") or row.get("lang")
        answers.setdefault(language, []).append(answer_of(row) or "")
    return {language: Vocabulary.of_texts(texts) for language, texts in answers.items()}
