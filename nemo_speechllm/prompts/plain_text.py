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

"""Text as token ids of which none is a control token: what somebody wrote must not end a turn or open another."""

import re
from collections.abc import Sequence

from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # protobuf makes it on import
from transformers import PreTrainedTokenizerBase

from nemo_speechllm.errors import InputError


class TextEncoder:
    """Encodes text with an LLM's tokenizer; only a template writes control tokens.

    Ordinary text has the very ids that the tokenizer gives it. Where the tokenizer would read a control token in what
    somebody said, that is read once more as the tokenizer would if it had no such token.

    Args:
        tokenizer: of the LLM. What was added to its vocabulary are control tokens, but for white space.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self._controls = _control_tokens(tokenizer)
        self._control_ids = set(self._controls.values())
        spellings = sorted(map(re.escape, self._controls), key=len, reverse=True)
        self._spelled = re.compile("|".join(spellings) or r"(?!)")

    def texts(self, texts: Sequence[str], name: str = "a text") -> list[list[int]]:
        """Return the ids of texts that somebody said.

        Args:
            name: where they come from, for messages.

        Raises:
            ValueError: a text cannot be read but as a control token; it is named.
        """
        rows = self.tokenizer(list(texts), add_special_tokens=False).input_ids if texts else []
        return [
            row if self._control_ids.isdisjoint(row) else self._plain(text, name)
            for text, row in zip(texts, rows, strict=True)
        ]

    def template(self, text: str, inserted: Sequence[tuple[int, int]], name: str = "a text") -> list[int]:
        """Return the ids of a template's text, with its control tokens.

        Args:
            text: rendered.
            inserted: begin and end of each stretch, in order, that is not the template's own.
            name: see `texts`.

        Raises:
            ValueError: see `texts`.
        """
        begins, ends = [0, *(end for _, end in inserted)], [*(begin for begin, _ in inserted), len(text)]
        written = [match for gap in zip(begins, ends, strict=True) for match in self._spelled.finditer(text, *gap)]
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        if [i for i in ids if i in self._control_ids] == [self._controls[match[0]] for match in written]:
            return ids
        ids, position = [], 0
        for match in written:
            ids += [*self._plain(text[position : match.start()], name), self._controls[match[0]]]
            position = match.end()
        return ids + self._plain(text[position:], name)

    def _plain(self, text: str, name: str) -> list[int]:
        """Return the ids of a text without any added token."""
        if self.tokenizer.is_fast:
            ids = _backend_ids(self.tokenizer.backend_tokenizer, text)
        else:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        matched = sorted(self._control_ids.intersection(ids))
        if matched:
            raise InputError(
                f"{name}: its text holds {self.tokenizer.convert_ids_to_tokens(matched)}, which this model's "
                "tokenizer cannot read but as a control token; remove it"
            )
        return ids


def _backend_ids(backend, text: str) -> list[int]:
    """Return what a fast tokenizer makes of a text but for its added tokens.

    ``split_special_tokens`` leaves out the special alone.
    """
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    words = [text]
    if backend.pre_tokenizer is not None:
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for word in words for token in backend.model.tokenize(word)]


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Spelling → id of special and added tokens, and of the symbols of a slow tokenizer's SentencePiece model."""
    tokens = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    tokens |= {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    if not tokenizer.is_fast and hasattr(tokenizer, "sp_model"):
        tokens |= symbols(tokenizer.sp_model)
    unknown = _unknown_id(tokenizer)
    return {text: index for text, index in tokens.items() if text.strip().strip("▁") and index != unknown}


def symbols(model: SentencePieceProcessor) -> dict[str, int]:
    """Return spelling → id of a SentencePiece model's control symbols and of those that it looks for in a text."""
    pieces = ModelProto.FromString(model.serialized_model_proto()).pieces
    kinds = (ModelProto.SentencePiece.CONTROL, ModelProto.SentencePiece.USER_DEFINED)
    return {piece.piece: index for index, piece in enumerate(pieces) if piece.type in kinds}


def _unknown_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return what unknown letters become: text, not control.

    A tokenizer of bytes knows all letters, whatever it calls unknown.
    """
    if not tokenizer.is_fast:
        return tokenizer.unk_token_id
    model = tokenizer.backend_tokenizer.model
    unknown = getattr(model, "unk_token", None)
    return getattr(model, "unk_id", None) if unknown is None else model.token_to_id(unknown)
