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
"""The CTC output layer of a NeMo ASR model, kept beside the encoder it was trained with."""

from dataclasses import dataclass
from pathlib import Path

import torch
from nemo.collections.asr.losses.ctc import CTCLoss
from nemo.collections.asr.models import ASRModel, EncDecCTCModelBPE
from nemo.collections.asr.modules import ConvASRDecoder
from nemo.collections.asr.parts.submodules.ctc_decoding import CTCBPEDecoding
from nemo.collections.common.tokenizers import SentencePieceTokenizer
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


@dataclass
class Transcript:
    """What a CTC head reads: token ids of its own tokenizer, and their text."""

    ids: list[int]
    text: str


class CTCHead(nn.Module):
    """An encoder's states read as text by CTC, with NeMo's layer, loss and greedy decoding.

    Args:
        d_model: width of the states.
        tokenizer_file: SentencePiece model.

    Attributes:
        blank: its class, after those of the tokens.
    """

    def __init__(self, d_model: int, tokenizer_file: Path):
        super().__init__()
        self.tokenizer = SentencePieceTokenizer(str(tokenizer_file))
        # NeMo's decoding takes SentencePiece's method of this name for the number, which NeMo's models put there
        self.tokenizer.tokenizer.vocab_size = self.tokenizer.vocab_size
        self.blank = self.tokenizer.vocab_size
        self.decoder = ConvASRDecoder(feat_in=d_model, num_classes=self.blank)
        self.decoding = CTCBPEDecoding(OmegaConf.create({"strategy": "greedy_batch"}), self.tokenizer)
        self.ctc_loss = CTCLoss(self.blank, zero_infinity=True, reduction="mean_volume")

    def log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities (B, T, V + 1) of states (B, T, d_model); the blank is the last."""
        return self.decoder(encoder_output=states.transpose(1, 2))

    @torch.inference_mode()
    def log_ratios(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return how much likelier blank and tokens (N,) are than each frame's likeliest class, (T, 1 + N).

        These are log-probabilities of states (T, d_model), over that of the likeliest class.
        """
        log_probs = self.log_probs(states[None])[0]
        classes = torch.cat([tokens.new_tensor([self.blank]), tokens]).to(states.device)
        return log_probs[:, classes] - log_probs.amax(-1, keepdim=True)

    def loss(self, states: Tensor, lengths: Tensor, texts: list[str]) -> Tensor:
        """Return the mean loss per token of the texts. One with more tokens than its audio has states adds nothing.

        Args:
            states: (B, T, d_model), lengths (B,).
            texts: B transcripts, none of them empty.
        """
        targets = [torch.tensor(self.tokenizer.text_to_ids(text), device=states.device) for text in texts]
        return self.ctc_loss(
            log_probs=self.log_probs(states),
            targets=pad_sequence(targets, batch_first=True),
            input_lengths=lengths,
            target_lengths=torch.tensor([len(target) for target in targets], device=states.device),
        )

    def greedy(self, states: Tensor, lengths: Tensor) -> list[Transcript]:
        """Return the best path of each item, states (B, T, d_model), lengths (B,)."""
        found = self.decoding.ctc_decoder_predictions_tensor(
            self.log_probs(states), decoder_lengths=lengths, return_hypotheses=True
        )
        paths = [torch.as_tensor(hypothesis.y_sequence).unique_consecutive() for hypothesis in found]
        return [
            Transcript(path[path != self.blank].tolist(), item.text) for path, item in zip(paths, found, strict=True)
        ]


def check_has_ctc_head(asr_model: ASRModel, reference: str) -> EncDecCTCModelBPE:
    """Return the model if it has a CTC output over SentencePiece tokens.

    Raises:
        ValueError: the model has no CTC output over SentencePiece tokens.
    """
    has_head = isinstance(asr_model, EncDecCTCModelBPE) and isinstance(asr_model.tokenizer, SentencePieceTokenizer)
    if not has_head:
        raise ValueError(
            f"model.perception.encoder.pretrained={reference} holds a {type(asr_model).__name__}, not an "
            "EncDecCTCModelBPE with one SentencePiece tokenizer; train one with "
            "--config-name=ctc_prompted_llm/stage1_ctc"
        )
    return asr_model
