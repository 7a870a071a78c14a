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

import re

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM
from tests.questions import conversations

MULTIMODAL = {"use_multimodal_sampling": True, "token_equivalent_duration": 0.08, "use_bucketing": False}


@pytest.mark.parametrize("listed", [False, True], ids=["one manifest", "a list, which never ends"])
@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"max_duration": 0.1}, "max_duration=0.1"),
        ({"min_duration": 30.0, "max_duration": 60.0}, "min_duration=30.0"),
        ({"drop_last": True, "batch_size": 64}, "drop_last=True"),
        (MULTIMODAL | {"max_tps": 0.01}, "max_tps=0.01"),
        (MULTIMODAL | {"bucket_duration_bins": [1, 2], "bucket_batch_size": [1, 1]}, "bucket_batch_size=[1, 1]"),
    ],
    ids=lambda value: value.split("=")[0] if isinstance(value, str) else "",
)
def test_a_filter_that_leaves_nothing_is_named(filters, named, listed, tiny_salm_config, make_manifest):
    manifest = str(make_manifest())
    data = filters | {"manifest_filepath": [manifest, str(make_manifest(name="more.jsonl"))] if listed else manifest}
    model = SALM(OmegaConf.merge(tiny_salm_config.model, {"train_ds": data, "validation_ds": data}))
    for setup, cfg in (
        (model.setup_training_data, model.cfg.train_ds),
        (model.setup_validation_data, model.cfg.validation_ds),
    ):
        with pytest.raises(ValueError, match=rf"manifest.jsonl.*no (row|line) is left.*{re.escape(named)}"):
            setup(cfg)


@pytest.mark.parametrize("kind", ["filtered", "cuts", "buckets"])
def test_a_section_without_a_row_is_not_blamed_on_its_buckets(kind, load, make_manifest, tmp_path):
    """Lhotse asserts that there are as many recordings as buckets before anybody looks whether there is one."""
    bucketed = {"batch_size": 2, "use_bucketing": True, "num_buckets": 10}
    manifest = str(make_manifest((1.0, 1.2, 1.4)))
    (tmp_path / "cuts.jsonl").write_text("")
    section, message = {
        "filtered": (
            {"manifest_filepath": manifest, "drop_last": True, "batch_size": 64},
            "no row is left.*by drop_last=True",
        ),
        "cuts": ({"cuts_path": str(tmp_path / "cuts.jsonl")}, "cuts.jsonl is empty; write a cut for each"),
        "buckets": ({"manifest_filepath": manifest}, "number of buckets.*set use_bucketing=false"),
    }[kind]
    with pytest.raises(ValueError, match=message):
        load(**bucketed | section)


@pytest.mark.parametrize(
    "content", ["", "\n", '{"audio_filepath": "a.wav", "duration": 9, "text": "a", "_skipme": true}\n']
)
def test_a_manifest_without_a_line_is_what_is_blamed(content, load, tmp_path):
    (tmp_path / "none.jsonl").write_text(content)
    with pytest.raises(
        ValueError, match="none.jsonl( is empty; write a line|: every line is left out by its `_skipme`)"
    ):
        load(manifest_filepath=str(tmp_path / "none.jsonl"), batch_size=2, use_bucketing=True, num_buckets=10)


def test_what_nemos_filters_leave_out_is_named_and_counted(tiny_salm_config, make_manifest, nemo_log):
    rows = [{}, {"text": "one two three four five six seven eight nine ten " * 9}, {}, {}]
    data = MULTIMODAL | {"manifest_filepath": str(make_manifest(name="tokens.jsonl", rows=rows)), "max_tps": 100.0}
    model = SALM(OmegaConf.merge(tiny_salm_config.model, {"train_ds": data}))
    model.setup_training_data(model.cfg.train_ds)
    assert sum(len(batch.conversations) for batch in model.train_dataloader()) == 3
    told = [line for line in nemo_log.text.splitlines() if "is left out by NeMo's" in line]
    assert len(told) == 1, told
    assert re.search(r"tokens\.jsonl:2 is left out .*TokenPerSecondFilter\(.*tps_max=100.0\), 1 examples", told[0])


def test_what_is_left_by_filters_is_trained_on(tiny_salm_config):
    model = SALM(OmegaConf.merge(tiny_salm_config.model, {"train_ds": {"max_duration": 0.7}}))
    model.setup_training_data(model.cfg.train_ds)
    assert [len(batch.conversations) for batch in model.train_dataloader()] == [1]


def test_duration_filter_says_what_it_leaves_out(load, make_manifest, nemo_log):
    manifest = make_manifest([0.2, 0.5, 1.0, 3.0])
    batches = load(manifest_filepath=str(manifest), batch_size=4, min_duration=0.3, max_duration=2.0)
    assert f"{manifest}: 2 of 4 lines (3.2 s) are left out" in nemo_log.text
    assert sorted(c.audios[0].duration for c in conversations(batches)) == [0.5, 1.0]


def test_filter_that_leaves_nothing_is_an_error(load, make_manifest):
    manifest = make_manifest([0.2])
    with pytest.raises(ValueError, match=f"{manifest}: no line is left: all are shorter than min_duration"):
        load(manifest_filepath=str(manifest), batch_size=1, min_duration=1.0)
