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

"""build_desta.py with its recipes: from a manifest to batches that train.py reads."""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import ConversationBuilder, ConversationDataset
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.recipes.sections import Prompt

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def main(load_script):
    return load_script("data/build_desta").main


@pytest.fixture(scope="module")
def chatty_llm_folder(tiny_llm_folder, tmp_path_factory) -> Path:
    """Weights so large that it has something to say."""
    llm, folder = AutoModelForCausalLM.from_pretrained(tiny_llm_folder), tmp_path_factory.mktemp("chatty_llm")
    torch.manual_seed(0)
    for weight in llm.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    llm.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llm_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(make_manifest, chatty_llm_folder, tmp_path) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("desta2/build")
    assert OmegaConf.missing_keys(cfg) == {"manifest", "output_dir"}
    cfg.manifest, cfg.output_dir = str(make_manifest(gender="female")), str(tmp_path / "out")
    cfg.llm, cfg.max_new_tokens, cfg.metadata.extractors = str(chatty_llm_folder), 6, ["duration", "volume"]
    return cfg


def accept_everything(monkeypatch):
    """Random weights never end an answer."""
    monkeypatch.setattr("nemo_speechllm.desta.build.reason_to_reject", lambda completion, seed: None)


def test_the_pool_differs_from_the_paper_by_its_questions_alone():
    with initialize_config_dir(str(CONF), version_base=None):
        paper, pool = compose("desta2/build"), compose("desta2/build_pool")
    assert paper.questions == ["What can you hear from the audio?"] and paper.questions[0] in pool.questions
    assert len(set(pool.questions)) == len(pool.questions) > 1
    paper.questions = pool.questions
    assert paper == pool


def test_its_manifest_is_read_for_training(main, recipe, monkeypatch):
    accept_everything(monkeypatch)
    main(recipe)
    rows = read_manifest(Path(recipe.output_dir) / "desta.jsonl", locate_audio=True)
    report = json.loads((Path(recipe.output_dir) / "report.json").read_text())
    assert report == {"rows": 4, "kept": 4, "empty": 0, "truncated": 0, "refusal": 0, "echo": 0}
    section = {"manifest_filepath": f"{recipe.output_dir}/desta.jsonl", "batch_size": 4, "num_workers": 0}
    section |= {"use_lhotse": True, "sample_rate": 16000}
    dataset = ConversationDataset(ConversationBuilder(Prompt({"asr": "Transcribe."})))
    (batch,) = build_dataloader(OmegaConf.create(section), dataset, None, 0, 1)
    read = {
        c.metadata["id"]: (c.question.instruction, c.answer, c.metadata["transcription"]) for c in batch.conversations
    }
    assert read == {row["id"]: (row["instruction"], row["answer"], row["text"]) for row in rows}


def test_says_which_shards_are_still_to_run(main, recipe, monkeypatch, caplog):
    accept_everything(monkeypatch)
    said = []
    monkeypatch.setattr("nemo.utils.logging.info", said.append)
    recipe.num_shards = 2
    main(recipe)
    assert "run shard 1 (" in said[-1]
    recipe.shard_index = 1
    main(recipe)
    assert len(read_manifest(Path(recipe.output_dir) / "desta.jsonl")) == 4


def test_refuses_to_mix_recipes_but_not_batch_sizes(main, recipe, monkeypatch):
    accept_everything(monkeypatch)
    main(recipe)
    recipe.transformers.batch_size = 1
    main(recipe)
    recipe.questions = ["Who speaks?"]
    with pytest.raises(
        ValueError, match="out/descriptions holds descriptions of another .*questions was .*Who speaks"
    ):
        main(recipe)


def test_an_unknown_engine_names_those_there_are(main, recipe):
    recipe.engine = "llama.cpp"
    with pytest.raises(ValueError, match="engine=llama.cpp: there are transformers, vllm, endpoint"):
        main(recipe)
    assert not Path(recipe.output_dir).exists()  # nothing was measured first
