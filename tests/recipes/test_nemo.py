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

"""What NeMo would pass over in silence in a section of its own is named."""

import pytest

from nemo_speechllm.recipes import SettingError, complete
from nemo_speechllm.recipes.nemo import MODULES, Built, Optimizer, SpectrogramAugmentation


@pytest.mark.parametrize(
    ("section", "given", "message"),
    [
        (SpectrogramAugmentation, {"freq_mask": 2}, "at has no setting 'freq_mask'; did you mean 'freq_masks'"),
        (Built, {"_target_": f"{MODULES}.ConformerEncoder", "n_layer": 2}, "'n_layer'; did you mean 'n_layers'"),
        (Optimizer, {"name": "adamw", "weigth_decay": 0.1}, "at has no setting 'weigth_decay'; .*'weight_decay'"),
        (
            Optimizer,
            {"name": "adamw", "lr": 1.0, "sched": {"name": "CosineAnnealing", "warmup_step": 1}},
            "at.sched has no setting 'warmup_step'; did you mean 'warmup_steps'",
        ),
    ],
)
def test_a_misspelt_argument_is_named_with_the_nearest(section, given, message):
    with pytest.raises(SettingError, match=message):
        complete(section, given, "at")


@pytest.mark.parametrize(
    ("section", "given"),
    [
        (SpectrogramAugmentation, {"freq_masks": 2, "time_width": 0.05}),
        (Built, {"_target_": f"{MODULES}.ConformerEncoder", "n_layers": 2, "d_model": 64}),
        (Built, {"_target_": "of.a.plug_in", "anything": 1}),
        (Optimizer, {"name": "of_a_plug_in", "anything": 1, "sched": {"name": "of_another", "anything": 1}}),
        (Optimizer, {"name": "adamw", "args": {"anything": 1}}),
        (
            Optimizer,
            {"name": "adamw", "lr": 1.0, "sched": {"name": "CosineAnnealing", "warmup_steps": 1, "min_lr": 0}},
        ),
    ],
)
def test_what_nemo_reads_stays_as_it_is(section, given):
    whole = complete(section, given, "at")
    assert {key: whole[key] for key in given} == given
