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

"""What a decoding section of NeMo's asks for beyond its defaults, by name."""

import pytest
from nemo.collections.asr.parts.submodules.ctc_decoding import CTCDecodingConfig
from nemo.collections.asr.parts.submodules.rnnt_decoding import RNNTDecodingConfig
from omegaconf import OmegaConf

from nemo_speechllm.models.decoding_settings import differing_beside, differing_settings


@pytest.mark.parametrize("kind", [CTCDecodingConfig, RNNTDecodingConfig])
def test_defaults_ask_for_nothing(kind):
    assert differing_settings(kind()) == differing_settings(OmegaConf.structured(kind)) == []
    assert differing_settings(None) == []


def test_a_setting_of_any_depth_is_named_with_its_value():
    cfg = OmegaConf.structured(CTCDecodingConfig(strategy="beam"))
    cfg.beam.beam_size = 7
    cfg.confidence_cfg.preserve_word_confidence = True
    named = {"strategy=beam", "beam.beam_size=7", "confidence_cfg.preserve_word_confidence=True"}
    assert set(differing_settings(cfg)) == named


def test_all_of_a_plain_section_counts():
    assert differing_settings({"strategy": "greedy", "beam": {"beam_size": 4}}) == [
        "strategy=greedy",
        "beam={'beam_size': 4}",
    ]


def test_sections_beside_it_count_but_for_what_scripts_set_themselves():
    script = OmegaConf.create(
        {
            "ctc_decoding": CTCDecodingConfig(),
            "rnnt_decoding": RNNTDecodingConfig(fused_batch_size=-1, strategy="maes"),
            "att_context_size": [70, 13],
        }
    )
    assert differing_beside(script.ctc_decoding) == ["rnnt_decoding.strategy=maes", "att_context_size=[70, 13]"]
    assert differing_beside(script.rnnt_decoding) == ["att_context_size=[70, 13]"]
    assert differing_beside(CTCDecodingConfig()) == differing_beside(None) == []
