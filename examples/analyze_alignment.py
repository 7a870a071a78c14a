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

"""Does the projected speech run along the words? Cosines of audio and text embeddings (2307.11795).

    python examples/analyze_alignment.py model=salm_whisper_smollm2 manifest=test.jsonl output_dir=runs/alignment

Writes ``alignment.json`` (scores of every utterance and their means with 95 % bootstrap intervals; what they mean:
nemo_speechllm/metrics/alignment.py) and ``maps/*.png`` of the first ``maps`` utterances: a row per token of the
reference, a column per audio embedding, and the best monotonic path. ``model`` is any decoder-only speech LM: the name
of a shipped checkpoint, a ``.nemo`` file or a hub id. Utterances of less than two tokens or embeddings are listed as
``skipped``.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING
from tqdm import tqdm

from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.evaluation.plot import Figure
from nemo_speechllm.files import write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.metrics.alignment import AlignmentScore, alignment_score, cosine_map
from nemo_speechllm.metrics.significance import mean_interval
from nemo_speechllm.models import load_model
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM

SCORES = ("monotonicity", "path_cosine", "path_gain")


@dataclass
class AnalyzeAlignmentArguments:
    """Which model and utterances are analysed, and where the results go."""

    model: str = MISSING
    manifest: str = MISSING
    output_dir: str = MISSING
    limit: int | None = None  # only the first utterances of the manifest
    maps: int = 8  # how many are drawn
    batch_size: int = 8
    seed: int = 0  # of the random orders and of the bootstrap


def audio_of(row: dict) -> Conversation:
    """Return a manifest row's audio alone: what is asked about it does not change how it is embedded."""
    audio = Audio.from_row(row)
    return Conversation(audio.name, [Turn("user", [audio])])


def draw(path: Path, title: str, cosines: np.ndarray, tokens: list[str], score: AlignmentScore, shift: float) -> None:
    """Draw a map (N, T) as a PNG: tokens from the top, seconds to the right, the best path dotted."""
    figure = Figure(
        figsize=(max(5.0, 0.12 * cosines.shape[1] + 2), max(2.5, 0.22 * len(tokens) + 1.2)), layout="constrained"
    )
    axes = figure.add_subplot()
    image = axes.imshow(
        cosines, aspect="auto", interpolation="nearest", extent=(0, cosines.shape[1] * shift, len(tokens), 0)
    )
    seconds = (np.array(score.path) + 0.5) * shift
    axes.plot(seconds, np.arange(len(tokens)) + 0.5, "o", color="white", markeredgecolor="black", markersize=4)
    axes.set_yticks(np.arange(len(tokens)) + 0.5, [token.replace(" ", "␣").replace("$", r"\$") for token in tokens])
    axes.set_xlabel("seconds")
    axes.set_title(
        f"{title}\nmonotonicity {score.monotonicity:.2f}, path gain {score.path_gain:.3f} (p = {score.path_p:.3f})",
        fontsize=9,
    )
    figure.colorbar(image, label="cosine")
    figure.savefig(path, dpi=120)


def summary(utterances: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Return mean and 95 % interval of each score over utterances."""
    means = {}
    for score in SCORES:
        values = [utterance[score] for utterance in utterances]
        means[score] = {"mean": float(np.mean(values)), "ci": mean_interval(values, seed)}
    return means


@hydra_runner(config_name="AnalyzeAlignmentArguments", schema=AnalyzeAlignmentArguments)
def main(cfg: AnalyzeAlignmentArguments) -> None:
    """Write the maps and scores of the utterances."""
    check_settings(cfg)
    rows = read_manifest(cfg.manifest, locate_audio=True)[: cfg.limit]
    model = load_model(cfg.model)
    if not isinstance(model, DecoderOnlySpeechLM):
        raise ValueError(f"{cfg.model} is a {type(model).__name__}, whose decoder does not read audio as embeddings")
    if model.perception.frame_shift is None:
        raise ValueError(f"{cfg.model} has a Q-Former, whose embeddings have no order in time that text could follow")
    output = Path(cfg.output_dir)
    (output / "maps").mkdir(parents=True, exist_ok=True)
    utterances, skipped, shift = [], [], model.perception.frame_shift

    with tqdm(total=len(rows), unit="utt", desc=Path(cfg.manifest).name) as progress:
        for batch in in_batches(list(enumerate(rows)), cfg.batch_size):
            for (index, row), audio in zip(batch, model.embed_audio([audio_of(row) for _, row in batch]), strict=True):
                reference = row.get("text") or row.get("answer")
                if not reference:
                    raise ValueError(f"{cfg.manifest}: {row['audio_filepath']} has no 'text' to align with")
                tokens, text = model.embed_text(reference)
                entry = {
                    "index": index,
                    "audio_filepath": row["audio_filepath"],
                    "text": reference,
                    "lang": row.get("lang"),
                }
                if min(len(tokens), len(audio)) < 2:
                    skipped.append(entry)
                    continue
                cosines = cosine_map(text.float().cpu().numpy(), audio.float().cpu().numpy())
                score = alignment_score(cosines, seed=cfg.seed)
                utterances.append(entry | {"tokens": len(tokens), "frames": len(audio)} | asdict(score))
                if len(utterances) <= cfg.maps:
                    name = f"{index:04d}_{Path(row['audio_filepath']).stem}"
                    draw(output / "maps" / f"{name}.png", name, cosines, tokens, score, shift)
            progress.update(len(batch))

    if not utterances:
        raise ValueError(f"{cfg.manifest}: not one of {len(rows)} utterances has two tokens and two audio embeddings")
    means = summary(utterances, cfg.seed)
    report = {"model": cfg.model, "manifest": cfg.manifest, "frame_shift": shift, "utterances": len(utterances)}
    write_json(output / "alignment.json", report | means | {"rows": utterances, "skipped": skipped})
    for score, figures in means.items():
        emit(f"{score:14}{figures['mean']:8.3f}  95 % CI {figures['ci'][0]:.3f} to {figures['ci'][1]:.3f}")
    logging.info(f"{len(utterances)} utterances, {len(skipped)} skipped; alignment.json and maps/ are in {output}")


if __name__ == "__main__":
    run_command(main)
