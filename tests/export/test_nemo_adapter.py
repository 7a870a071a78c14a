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

"""The modality adapter that NeMo's SALM is given."""

import pytest
import torch

from nemo_speechllm.export.nemo_adapter import ProjectedConformer

CONFORMER = {"n_layers": 1, "d_model": 16, "n_heads": 2, "subsampling": "dw_striding", "subsampling_factor": 2}


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("conformer", [None, CONFORMER])
def test_is_what_follows_the_encoder_and_does_not_depend_on_the_batch(stack, conformer):
    torch.manual_seed(0)
    adapter = ProjectedConformer(8, 24, stack, conformer).eval()
    states, lengths = torch.randn(2, 8, 40), torch.tensor([40, 25])
    embedded, counts = adapter(audio_signal=states, length=lengths)
    assert embedded.shape == (2, 24, counts.max())
    assert adapter.subsampling_factor == stack * (2 if conformer else 1)
    torch.testing.assert_close(embedded.square().mean(1).sqrt()[0], adapter.projection.scale.expand(int(counts[0])))
    (alone,), (count,) = adapter(audio_signal=states[1:, :, :25], length=lengths[1:])
    assert count == counts[1]
    torch.testing.assert_close(alone[:, :count], embedded[1, :, :count])
