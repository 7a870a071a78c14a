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

"""Recall, time and memory of the filter that cuts long keyword lists to what CTC may have heard.

    python examples/benchmark/keyword_filter.py salm_whisper_smollm2 test.jsonl --vocabulary words.txt \
        --output runs/benchmark/keyword_filter.json

The keywords of an utterance are its words that no other utterance of the manifest has. Lists of each size hold those
of all the utterances and words of the vocabulary; recall is the share of an utterance's keywords that are left when
its list is cut to the limit. Time is that of one utterance, the median over all; getting a list ready is done once.
Memory is what the filter of a list holds.
"""

import argparse
import statistics
import time
import tracemalloc
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.data.keywords import Vocabulary, read_keywords, words_of
from nemo_speechllm.decoding.keyword_filter import Evidence, KeywordFilter
from nemo_speechllm.files import write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.models import load_model
from nemo_speechllm.models.answering import require_transcripts
from nemo_speechllm.models.speech_lm import SpeechLM

MIN_LETTERS = 3
BATCH_SIZE = 16


@torch.inference_mode()
def listen(model: SpeechLM, rows: list[dict]) -> list[Evidence]:
    """Return what the model's CTC hears."""
    audios = [Audio.from_row(row) for row in rows]
    conversations = [
        model.builder.conversation(audio, {"task": "asr"} | row, audio.name)
        for audio, row in zip(audios, rows, strict=True)
    ]
    dataset, evidence = ConversationDataset(model.builder), []
    for start in tqdm(range(0, len(rows), BATCH_SIZE), "batches"):
        batch = dataset.collate(conversations[start : start + BATCH_SIZE]).to(model.device)
        evidence += model.answering.evidence(batch, model.perceive(batch))
    return evidence


def keywords_of(rows: list[dict]) -> list[list[str]]:
    """Return the words of each row that are in no other."""
    counts = Vocabulary.of_texts(row["text"] for row in rows)
    words = [dict.fromkeys(words_of(row["text"])) for row in rows]
    return [[word for word in own if len(word) >= MIN_LETTERS and counts.is_rare(word, 1)] for own in words]


def measure(
    model: SpeechLM,
    heard: list[Evidence],
    said: list[list[str]],
    vocabulary: list[str],
    size: int,
    limits: list[int],
) -> dict[str, Any]:
    """Return the figures of a list of ``size`` words."""
    own = {word.casefold(): word for words in said for word in words}
    others = [word for word in dict.fromkeys(vocabulary) if word.casefold() not in own]
    if size < len(own) or size > len(own) + len(others):
        raise SystemExit(
            f"--sizes {size}: a list holds all {len(own)} keywords of the manifest and words of the vocabulary, "
            f"which has {len(others)} others; sizes are between {len(own)} and {len(own) + len(others)}"
        )
    words = [*own.values(), *others[: size - len(own)]]
    ctc = require_transcripts(model, "keyword_filter.py")
    started = time.perf_counter()
    KeywordFilter(words, ctc.ids)
    ready = time.perf_counter() - started
    tracemalloc.start()  # it slows down what it traces
    keyword_filter = KeywordFilter(words, ctc.ids)
    memory = tracemalloc.get_traced_memory()[0]
    memory += sum(part.nbytes for part in vars(keyword_filter).values() if isinstance(part, torch.Tensor))
    tracemalloc.stop()
    kept, seconds, left = dict.fromkeys(limits, 0), [], dict.fromkeys(limits, 0)
    for evidence, keywords in zip(heard, said, strict=True):
        for limit in limits:
            started = time.perf_counter()
            selected = {word.casefold() for word in keyword_filter.select(evidence, limit)}
            seconds.append(time.perf_counter() - started)
            kept[limit] += sum(word.casefold() in selected for word in keywords)
            left[limit] += len(selected)
    total = sum(map(len, said))
    return {
        "words": size,
        "ready_seconds": ready,
        "seconds": statistics.median(seconds),
        "mebibytes": memory / 2**20,
        "recall": {str(limit): kept[limit] / total for limit in limits},
        "left": {str(limit): left[limit] / len(said) for limit in limits},
    }


def main() -> None:
    """Measure the filter with lists of each size and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model with CTC")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--vocabulary", type=Path, required=True, help="text file with a word a line")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--limits", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    rows = read_manifest(arguments.manifest, locate_audio=True)
    said, vocabulary = keywords_of(rows), read_keywords(arguments.vocabulary)
    model = load_model(arguments.model).eval()
    heard = listen(model, rows)
    found = [{word.casefold() for word in words_of(evidence.text)} for evidence in heard]
    exact = [word.casefold() in words for words, own in zip(found, said, strict=True) for word in own]
    report = {"utterances": len(rows), "keywords": len(exact), "heard_exactly": sum(exact) / len(exact), "lists": []}
    emit(
        f"{len(exact)} keywords in {len(rows)} utterances, "
        f"{100 * report['heard_exactly']:.1f} % of them as CTC heard them"
    )
    for size in arguments.sizes:
        figures = measure(model, heard, said, vocabulary, size, arguments.limits)
        report["lists"].append(figures)
        recalls = ", ".join(f"{100 * value:.1f} % at {limit}" for limit, value in figures["recall"].items())
        emit(
            f"{size:6d} words: recall {recalls}; {1000 * figures['seconds']:.1f} ms an utterance, "
            f"{1000 * figures['ready_seconds']:.1f} ms to get ready, {figures['mebibytes']:.1f} MiB"
        )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, report)


if __name__ == "__main__":
    run_command(main)
