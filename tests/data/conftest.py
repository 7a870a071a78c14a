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

"""Batches of one epoch, of whatever a data section names."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import (
    ConversationBuilder,
    ConversationDataset,
)
from tests.questions import PROMPT

EPOCH = {"force_finite": True, "shuffle": False, "num_workers": 0, "sample_rate": 16000, "shard_seed": 0}


@pytest.fixture
def builder():
    return ConversationBuilder(PROMPT)


@pytest.fixture
def load(builder, tokenizer):
    """``load(**section, skip_bad_audio=False)`` → dataloader of one epoch."""

    def make(skip_bad_audio: bool = False, **section):
        cfg = OmegaConf.create(EPOCH | section)
        dataset = ConversationDataset(builder, skip_bad_audio)
        return build_dataloader(cfg, dataset, tokenizer, global_rank=0, world_size=1)

    return make


@pytest.fixture
def audio_file(make_manifest, tmp_path) -> Path:
    make_manifest([0.5])
    return tmp_path / "manifest-0.flac"


@pytest.fixture
def dialogue_file(make_manifest, tmp_path) -> Path:
    """Four conversations of one question and answer more each; the audio of the i-th lasts 0.5, 0.8, 1.1, 1.4 s."""
    durations = [0.5, 0.8, 1.1, 1.4]
    make_manifest(durations)
    lines = []
    for i, duration in enumerate(durations):
        turns = [
            {"from": "User", "type": "text", "value": "Listen: "},
            {"from": "User", "type": "audio", "value": f"manifest-{i}.flac", "duration": duration},
            {"from": "Assistant", "type": "text", "value": f"answer {i}"},
        ]
        for question in range(i):
            turns += [
                {"from": "User", "type": "text", "value": f"And {question}?"},
                {"from": "Assistant", "type": "text", "value": "Yes, of course."},
            ]
        lines.append(json.dumps({"id": f"talk-{i}", "conversations": turns}))
    path = tmp_path / "dialogues.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
