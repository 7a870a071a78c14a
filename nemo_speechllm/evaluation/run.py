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

"""A model over a manifest: its predictions, batch by batch, and their figures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from tqdm import tqdm

from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataset import PLACE_KEY, ConversationBuilder, asks_for_translation, in_batches, task_of
from nemo_speechllm.data.keywords import keyword_list
from nemo_speechllm.evaluation.asking import AskingArguments
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.evaluation.report import EvaluationReport, evaluation_report
from nemo_speechllm.files import as_object, file_digest, write_json
from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import audio_path, refuse
from nemo_speechllm.manifests.rows import answer_of
from nemo_speechllm.metrics.error_rate import AUTO, count_errors, normalizer_for
from nemo_speechllm.metrics.translation import check_metrics
from nemo_speechllm.models import load_system
from nemo_speechllm.models.answers import Answer, answering_record, change_generation
from nemo_speechllm.models.baseline import Baseline
from nemo_speechllm.models.loading import only_answer
from nemo_speechllm.models.speech_lm import SpeechLM

T = TypeVar("T")


@dataclass
class EvaluateArguments(AskingArguments):
    """What is evaluated, how its words are counted, and where the results go."""

    decoder: str | None = None  # llm, or ctc: the model's CTC head
    keywords: list[str] | None = None  # words that may occur; None: the manifest lines' own
    generation: dict[str, Any] = field(default_factory=dict)  # changes of the model's generation section
    normalizer: str = AUTO  # english for English and basic for other languages; or one of english, basic, none
    lm_loss: bool = False  # also the decoder's cross-entropy of the references, nats per token: finer than error rates


def checked_rows(manifest: str, channel_selector: int | str | None) -> list[dict]:
    """Read the rows of a manifest without a defect; one with an empty ``text`` is silence.

    Raises:
        FileNotFoundError, EmptyManifestError, ManifestError: see `check_manifest` and `refuse`.
    """
    rows, issues = check_manifest(manifest, channel_selector=channel_selector)
    refuse(manifest, issues)
    return rows


def run_record(cfg: EvaluateArguments, model: SpeechLM | Baseline) -> dict[str, Any]:
    """Return what the predictions depend on."""
    return answering_record(model, cfg.max_new_tokens, cfg.beam_size, cfg.decoder) | {
        "manifest": file_digest(cfg.manifest),
        "channel_selector": cfg.channel_selector,
        "normalizer": cfg.normalizer,
        "keywords": None if cfg.keywords is None else list(cfg.keywords),
        **({"lm_loss": True} if cfg.lm_loss else {}),
    }


def question(row: dict, cfg: EvaluateArguments, builder: ConversationBuilder, line: int) -> Conversation:
    """Return what the model is asked about a manifest row; ``line`` is its number, for messages."""
    path = audio_path(row, cfg.manifest)
    audio = Audio.from_file(path, row.get("offset"), row["duration"], cfg.channel_selector)
    return builder.conversation(audio, row | {PLACE_KEY: f"{cfg.manifest}:{line}"}, audio.name)


def prediction(index: int, asked: Conversation, answer: Answer, seconds: float, normalizer: str) -> dict[str, Any]:
    """Return a line of ``predictions.jsonl``.

    ``index`` counts the manifest's rows from 0, ``errors`` is in words. A translation has ``target_lang`` in the place
    of errors, words and the name of the ``normalizer`` that they were counted with.
    """
    row = asked.metadata
    text = answer_of(row) or ""
    if asks_for_translation(asked):
        figures = {"target_lang": row.get("target_lang")}
    else:
        name = normalizer_for(row.get("lang"), text, normalizer)
        *errors, words = count_errors([answer.text], [text], "word", name).counts
        figures = {"errors": sum(errors), "words": words, "normalizer": name}
    given: dict[str, Any] = {key: row[key] for key in ("offset", "snr") if key in row}
    given |= {"keywords": keyword_list(row["keywords"])} if "keywords" in row else {}
    return {
        "index": index,
        "audio_filepath": row["audio_filepath"],
        "duration": row["duration"],
        "lang": row.get("lang"),
        "text": text,
        "pred_text": answer.text,
        **figures,
        "truncated": answer.truncated,
        "interventions": list(answer.interventions),
        "seconds": seconds,
        **given,
    }


def reference_losses(model: SpeechLM, questions: list[Conversation]) -> list[dict[str, float]]:
    """Return what ``lm_loss`` adds to the predictions."""
    answered = [asked.with_answer(answer_of(asked.metadata) or "") for asked in questions]
    return [{"lm_loss": loss} for loss in model.answer_losses(answered)]


def evaluate(cfg: EvaluateArguments) -> EvaluationReport:
    """Write ``predictions.jsonl`` and ``metrics.json``; a run that was killed is taken up.

    Raises:
        ValueError: a line of the manifest has a defect, a setting is none of the model's, or ``output_dir`` holds
            predictions of something else.
        FolderInUse: another process writes into ``output_dir``.
    """
    rows = checked_rows(cfg.manifest, cfg.channel_selector)
    translations = [row for row in rows if task_of(row) == "ast"]
    check_metrics(cfg.normalizer, [(row.get("target_lang"), answer_of(row) or "") for row in translations])
    if cfg.keywords is not None:
        rows = [row | {"keywords": list(cfg.keywords)} for row in rows]
    model = load_system(cfg.model)
    if cfg.lm_loss and isinstance(model, Baseline):
        raise ValueError(f"model={cfg.model} has no lm_loss; leave it false")
    change_generation(model, cfg.generation)
    if cfg.generation.get("ctc_weight") and (cfg.decoder or getattr(model, "cur_decoder", None)) == "ctc":
        raise ValueError("generation.ctc_weight is of an answer of the LLM, and CTC answers here; add decoder=llm")
    log = PredictionLog(cfg.output_dir, run_record(cfg, model))
    only_answer(model)
    done = {prediction["index"] for prediction in log.predictions}
    todo = [(index, row) for index, row in enumerate(rows) if index not in done]

    with tqdm(total=len(rows), initial=len(done), unit="utt", desc=Path(cfg.manifest).name) as progress:
        for batch in in_batches(todo, cfg.batch_size):
            started = time.perf_counter()
            conversations = [question(row, cfg, model.builder, index + 1) for index, row in batch]
            answers = model.generate(conversations, cfg.batch_size, cfg.max_new_tokens, cfg.beam_size, cfg.decoder)
            seconds = (time.perf_counter() - started) / len(batch)
            predictions = [
                prediction(index, asked, answer, seconds, cfg.normalizer)
                for (index, _), asked, answer in zip(batch, conversations, answers, strict=True)
            ]
            if cfg.lm_loss:
                losses = reference_losses(cast(SpeechLM, model), conversations)
                predictions = [line | loss for line, loss in zip(predictions, losses, strict=True)]
            log.append(predictions)
            progress.update(len(batch))

    report = evaluation_report(log.predictions, cfg.normalizer)
    source = {"model": cfg.model, "manifest": cfg.manifest}
    write_json(Path(cfg.output_dir) / "metrics.json", source | as_object(report))
    return report


def evaluate_in_folder(model: str, manifest: Path, changes: Sequence[str]) -> EvaluationReport:
    """Return the figures of a model on a manifest; they are written into ``evaluation`` beside the manifest.

    Args:
        changes: of the other `EvaluateArguments`, as on a command line: ``key=value``.
    """
    given = {"model": model, "manifest": str(manifest), "output_dir": str(manifest.parent / "evaluation")}
    changed = OmegaConf.from_dotlist([change.lstrip("+") for change in changes])  # Hydra's sign of a new key
    cfg = OmegaConf.merge(OmegaConf.structured(EvaluateArguments), changed, given)
    return evaluate(cast(EvaluateArguments, cfg))


def arguments_of(schema: type[T], given: dict[str, Any]) -> T:
    """Return a script's arguments of values by key, as on its command line: ``section.key``, ``+key``.

    Raises:
        OmegaConfBaseException: there is no such argument, or a value is of another type.
    """
    cfg = OmegaConf.structured(schema)
    for key, value in given.items():
        OmegaConf.update(cfg, key.lstrip("+"), value)
    return cast(T, cfg)
