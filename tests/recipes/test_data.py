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

"""A key of a data section, or of one of its sources, that nothing would read is named."""

import pytest

from nemo_speechllm.recipes import SettingError, complete
from nemo_speechllm.recipes.data import Data


@pytest.mark.parametrize(
    ("train_ds", "message"),
    [
        ({"input_cfg": [{"type": "nemo", "weigth": 1}]}, r"input_cfg\[0\] has no setting 'weigth'; .* 'weight'"),
        (
            {"input_cfg": [{"type": "group", "input_cfg": [{"manifest_filepth": "a"}]}]},
            r"input_cfg\[0\].input_cfg\[0\] has no setting 'manifest_filepth'; did you mean 'manifest_filepath'",
        ),
        ({"multi_config": True, "a": {"batch_sise": 2}}, "train_ds.a has no setting 'batch_sise'; did you mean"),
    ],
)
def test_a_misspelt_key_of_a_source_of_data_is_named(train_ds, message):
    with pytest.raises(SettingError, match=message):
        complete(Data, train_ds, "model.train_ds")


@pytest.mark.parametrize("name", ["text_field", "lang_field"])
@pytest.mark.parametrize("value", [5, True, ["lang"]])
def test_what_can_be_no_key_of_a_line_is_named(name, value):
    for given, place in (({name: value}, ""), ({"input_cfg": [{name: value}]}, r"\.input_cfg\[0\]")):
        with pytest.raises(SettingError, match=rf"^model\.train_ds{place}\.{name} is .*the name of a manifest's key"):
            complete(Data, given, "model.train_ds")


def test_what_nemo_and_lhotse_read_stays_as_it_is():
    source = {"type": "lhotse_shar", "shar_path": "a", "weight": 0.5, "tags": {"anything": 1}}
    given = {"input_cfg": [source], "batch_duration": 20, "num_buckets": 5, "perturb_speed": True}
    assert complete(Data, given, "model.train_ds") == given | {"skip_bad_audio": False}


def test_keys_of_a_source_or_a_dataloader_that_is_another_s_are_its_own():
    complete(Data, {"input_cfg": [{"type": "of_a_plug_in", "anything": 1}]}, "model.train_ds")
    complete(Data, {"use_lhotse": False, "anything": 1}, "model.train_ds")
