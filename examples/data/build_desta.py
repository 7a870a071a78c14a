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

"""Descriptions of speech by a text LLM, for training DeSTA2: metadata, seed transcripts, generation (2409.20007).

    python examples/data/build_desta.py manifest=train.jsonl output_dir=runs/desta
    python examples/data/build_desta.py --config-name=desta2/build_pool manifest=train.jsonl output_dir=runs/desta_pool

``manifest`` has labels where there are any (gender, age, accent, emotion, …), maybe ``segments`` with their own.
What is finished is in ``metadata/`` and ``descriptions/``, row by row: the same command resumes a run that was killed.
With ``num_shards=N`` each ``shard_index`` is a command of its own, on any machine; whichever finds the journals of all
shards in its ``output_dir`` writes ``desta.jsonl``, which examples/train.py reads, and ``report.json``.
"""

from pathlib import Path

from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.desta.build import DESCRIPTIONS, METADATA, DescriptionBuilder
from nemo_speechllm.desta.metadata import Model
from nemo_speechllm.engines.loading import check_engine, load_engine
from nemo_speechllm.files import claim_record, file_digest, write_json


def load_models(cfg: DictConfig) -> dict[str, Model]:
    """Return the classifiers by attribute."""
    from nemo_speechllm.desta.classifiers import AudioClassifier, WhisperLanguage

    models = {attribute: AudioClassifier(reference) for attribute, reference in cfg.classifiers.items()}
    return models | ({"language": WhisperLanguage(cfg.language)} if cfg.language else {})


def claim(builder: DescriptionBuilder, cfg: DictConfig) -> None:
    """Note what each stage depends on, or refuse to mix; batch size and concurrency change no description."""
    cfg = OmegaConf.to_container(cfg, resolve=True)
    source = {"manifest": file_digest(builder.manifest)}
    source |= {key: cfg[key] for key in ("num_shards", "channel_selector", "metadata")}
    wording = {
        key: cfg[key] for key in ("attributes", "questions", "template", "seed", "max_new_tokens", "llm", "engine")
    }
    if cfg["engine"] == "endpoint":
        wording["llm"] = cfg["endpoint"]["model"]
    for stage, record in ((METADATA, source), (DESCRIPTIONS, source | wording)):
        folder = builder.output_dir / stage
        folder.mkdir(parents=True, exist_ok=True)
        claim_record(folder / "run.json", record, f"{stage} of another manifest or recipe")


@hydra_runner(config_path="../../conf", config_name="desta2/build")
def main(cfg: DictConfig) -> None:
    """Build the descriptions of this shard, and the manifest of all once no shard is missing."""
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    check_engine(cfg)  # not after hours of measuring
    builder = DescriptionBuilder(cfg.manifest, cfg.output_dir, cfg.shard_index, cfg.num_shards)
    with builder.lock():
        claim(builder, cfg)
        builder.extract_metadata(cfg.metadata.extractors, lambda: load_models(cfg.metadata), cfg.channel_selector)
        builder.generate(lambda: load_engine(cfg), cfg.questions, cfg.template, cfg.attributes, cfg.seed)
    report = builder.finish(cfg.attributes)
    if report is None:
        waiting = ", ".join(f"{index} ({rows} rows)" for index, rows in sorted(builder.missing().items()))
        logging.info(f"this shard is done; run shard {waiting} here, or copy their journals here and run this again")
        return
    write_json(Path(cfg.output_dir) / "report.json", report)
    emit(", ".join(f"{name}: {count}" for name, count in report.items()))
    if 2 * report["kept"] < report["rows"]:
        logging.warning(
            f"most descriptions were rejected; read some in {cfg.output_dir}, and see llm and max_new_tokens"
        )
    logging.info(f"desta.jsonl and report.json are in {cfg.output_dir}")


if __name__ == "__main__":
    run_command(main)
