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

"""Every format is asked for by one script, which says what is left behind."""

import pytest
from nemo.collections.speechlm2.models import SALM as NeMoSALM
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM


@pytest.fixture
def export(load_script):
    """``export(**arguments)`` runs the script."""
    script = load_script("export")
    return lambda **arguments: script.main(OmegaConf.merge(OmegaConf.structured(script.ExportArguments), arguments))


@pytest.fixture
def nemo_encoder_file(tiny_salm_config, make_fastconformer, tmp_path) -> str:
    """A ``.nemo`` of a tiny SALM with a FastConformer, whose LLM reads every frame."""
    encoder = {"type": "nemo", "pretrained": str(make_fastconformer())}
    plain = {"ctc_compression": False, "perception": {"encoder": encoder, "stack": 1, "adapter": None}}
    SALM(OmegaConf.merge(tiny_salm_config.model, plain)).save_to(tmp_path / "m.nemo")
    return str(tmp_path / "m.nemo")


def test_a_folder_for_nemo(export, nemo_encoder_file, tmp_path, nemo_log):
    export(model=nemo_encoder_file, output=str(tmp_path / "salm"), format="nemo_salm", dtype="float32")
    assert NeMoSALM.from_pretrained(str(tmp_path / "salm")).audio_locator_tag == "<|audio|>"
    assert "no place for it in a nemo_salm folder: CTC's say in the choice of words" in nemo_log.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "onnx"}, "format=onnx: use nemo, hf, nemo_salm"),
        ({"format": "nemo_salm", "save_full": True}, "save_full=true is of format=nemo"),
        ({"format": "nemo_salm", "output": "."}, "is there already"),
        ({"format": "hf", "output": "/proc/new"}, "/proc"),
        ({"dtype": "int8", "output": "a.nemo"}, "dtype=int8: use float16, bfloat16 or float32"),
    ],
)
def test_refused_before_any_work(export, arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        export(**{"model": "there_is_none", "output": "new"} | arguments)
