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

"""What validation counts, errors of answers by data set, over all processes, and how this and losses are logged."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig
from torch import Tensor

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch, asks_for_translation, task_of, written_language
from nemo_speechllm.metrics.tally import ErrorTally
from nemo_speechllm.metrics.translation import check_metrics
from nemo_speechllm.models.answers import Answer, generation_options
from nemo_speechllm.models.listening import count_listening, report_listening
from nemo_speechllm.modules.collectives import gathered
from nemo_speechllm.training.non_finite import judge_validation

if TYPE_CHECKING:
    from nemo_speechllm.models.speech_lm import SpeechLM


def count_batch(model: "SpeechLM", tally: ErrorTally, batch: ConversationBatch) -> None:
    """Add to the running counts a batch's losses and the errors of what the model answers."""
    if batch.is_repeated:
        tally = ErrorTally()  # for nobody
    perceived = model.perceive(batch)
    loss = model.loss(batch, perceived)["loss"]
    tally.count_loss(float(loss), [conversation.id for conversation in batch.conversations])
    answers = model.answering.generate(batch, perceived, **generation_options(model.cfg.generation))
    _count_errors(tally, batch.conversations, answers, model.cfg.normalizer)
    count_listening(model, tally.listening, batch, perceived)


def _count_errors(
    tally: ErrorTally, conversations: list[Conversation], answers: Sequence[Answer], normalizer: str
) -> None:
    texts = [answer.text for answer in answers]
    # what is validated on has answers
    references = cast(list[str], [conversation.answer for conversation in conversations])
    languages = [written_language(conversation) for conversation in conversations]
    tally.count(texts, references, languages, normalizer)
    for text, reference, conversation, language in zip(texts, references, conversations, languages, strict=True):
        if asks_for_translation(conversation):
            tally.count_translation(text, reference, (str(conversation.metadata.get("lang")), str(language)))


def check_scores(normalizer: str, cfg: DictConfig) -> None:
    """Refuse, before any work, a data section whose texts could not be scored as a validation will.

    Raises:
        ValueError: a tokenizer of BLEU is missing, or there is no such normalizer.
    """
    from nemo_speechllm.data.sources import translations_of  # imports NeMo's collections, which takes seconds

    check_metrics(normalizer, translations_of(cfg))


def logged_names(
    cfg: DictConfig, has_ctc: bool, of_each_set: Callable[[list[str]], list[str]]
) -> tuple[list[str], bool]:
    """Return the names of all that a training with this config logs, and whether its data tell no languages.

    Args:
        cfg: of the model.
        has_ctc: whether it has CTC.
        of_each_set: makes of a figure's name those of every validation set.
    """
    from nemo_speechllm.data.sources import metadata_of  # imports NeMo's collections, which takes seconds

    losses = [str(name).replace("_weight", "_loss") for name in cfg.loss if str(name).endswith("_weight")]
    tally = _expected_tally(metadata_of(cfg.validation_ds) if cfg.get("validation_ds") else ())
    if cfg.loss.lm_weight > 0:
        tally.listening.count_answer(1.0, 1.0, 1)
    if has_ctc:
        tally.listening.count_alignment(-1.0, 1)
    names = of_each_set([f"val_{name}" for name in tally.figures()])
    names += [f"val_{name}" for name in tally.language_figures()]
    names += ["learning_rate", "train_loss", *(f"train_{name}" for name in losses)]
    return names, not tally.words


def _expected_tally(rows: Iterable[dict[str, Any]]) -> ErrorTally:
    """Return counts of a word in each language and direction of rows: the names of a validation's figures on them."""
    asked = {(row.get("lang"), row.get("target_lang") if task_of(row) == "ast" else None) for row in rows}
    tally = ErrorTally()
    for spoken, target in asked:
        tally.count(["a"], ["a"], [target or spoken], "none")
        if target:
            tally.count_translation("a", "a", (str(spoken), target))
    return tally


def log_losses(model: "SpeechLM", losses: dict[str, Tensor], size: int) -> None:
    """Log the losses of a training step of so many conversations, by name, and the learning rate."""
    model.log("train_loss", losses["loss"], prog_bar=True, batch_size=size)
    parts = {f"train_{name}": value for name, value in losses.items() if name != "loss"}
    model.log_dict(parts, batch_size=size)
    if model._trainer is not None and model._trainer.optimizers:
        model.log("learning_rate", model._trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)


def log_tallies(
    model: "SpeechLM", counted: dict[int, ErrorTally], stage: str, prefix_of: Callable[[int], str]
) -> None:
    """Log what was counted on all ranks, under the names of the stage, and start anew.

    Args:
        model: that logs, and whose config has the policy for losses that are no numbers; what its `deaf_remedy` says
            comes last, where it does not listen.
        counted: by data set.
        stage: ``val`` or ``test``.
        prefix_of: of the names of a data set's figures, where there are several.
    """
    tallies = _sum_over_ranks(counted)
    all_sets = sum(tallies.values(), ErrorTally())
    judge_validation(all_sets.without_loss, all_sets.items, model.cfg.non_finite)
    for index, tally in sorted(tallies.items()):
        prefix = prefix_of(index) if len(tallies) > 1 else ""
        metrics = {f"{stage}_{name}": value for name, value in tally.figures().items()}
        model.log_dict({f"{prefix}{name}": value for name, value in metrics.items()}, prog_bar=True)
        if prefix and index == 0:  # NeMo's names for checkpoint monitors mean the first set
            model.log_dict(metrics)
    languages = all_sets.language_figures()
    model.log_dict({f"{stage}_{name}": value for name, value in languages.items()})
    counted.clear()
    report_listening(all_sets.listening, stage, model.deaf_remedy)


def _sum_over_ranks(tallies: dict[int, ErrorTally]) -> dict[int, ErrorTally]:
    """Return tallies by validation set, over all ranks.

    A rank may have seen other sets and other languages than its neighbour.
    """
    of_ranks = gathered(tallies)
    sets = {index for of_rank in of_ranks for index in of_rank}
    return {index: sum((of_rank.get(index, ErrorTally()) for of_rank in of_ranks), ErrorTally()) for index in sets}
