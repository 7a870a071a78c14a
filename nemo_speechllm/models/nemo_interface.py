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

"""What NeMo's own scripts ask of an ASR model: a speech LM does it, or says what to use instead."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from nemo.collections.asr.parts.mixins.transcription import ASRTranscriptionMixin, TranscribeConfig
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from nemo.core.classes import ModelPT
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder
from nemo_speechllm.models.answering import Answering, require_transcript, require_transcripts
from nemo_speechllm.models.answers import (
    OF_WORDS,
    Answer,
    AnsweredPiece,
    generation_options,
    joined,
    joined_pieces,
)
from nemo_speechllm.models.decoding_settings import differing_beside, differing_settings
from nemo_speechllm.models.hypotheses import hypothesis_of
from nemo_speechllm.models.inputs import conversations_of
from nemo_speechllm.models.oomptimizer import schema_of
from nemo_speechllm.models.segmentation import is_cut
from nemo_speechllm.models.transcription import (
    SpeechLMTranscribeConfig,
    check_settings,
    check_takes_settings,
    manifest_keys,
    seconds_bar,
    transcription_config,
)
from nemo_speechllm.modules.linear import is_packed
from nemo_speechllm.modules.llm import has_merged_lora
from nemo_speechllm.modules.perception import Perception
from nemo_speechllm.modules.quantization import is_int8

# attributes that scripts read of other models
ABSENT = {
    "decoder": (
        "so its vocabulary cannot be changed (model.tokenizer.update_tokenizer): it is that of its text decoder"
    ),
    "joint": "which is a transducer's",
    "preprocessor": "its features are made in perception.encoder",
}


def _instead(name: str, remedy: str) -> Callable[..., NoReturn]:
    """Return a method that NeMo's models have and a speech LM has not."""

    def method(self: nn.Module, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} has no {name}: {remedy}")

    method.__name__, method.__doc__ = name, f"Raise NotImplementedError: {remedy}."
    return method


class NeMoInterface(ASRTranscriptionMixin, ModelPT):
    """The part of NeMo's ASR interface that is the same whatever a speech LM is made of."""

    tokenizer: Any  # of the text decoder, Hugging Face's or one that is called as they are
    builder: ConversationBuilder
    perception: Perception
    answering: Answering

    decoding = None  # NeMo's scripts tell models apart by the class of it

    forward = _instead(
        "forward", "call loss(batch) for training, transcribe(audio) or generate(conversations) for answers"
    )
    export = _instead(
        "export",
        "a text decoder that generates is no single graph for ONNX or TorchScript; save_to('model.nemo') saves it, "
        "and examples/export.py makes that file small",
    )
    save_pretrained = _instead(
        "save_pretrained", "save_to('model.nemo') saves it and push_to_hf_hub('org/name') publishes it"
    )
    change_vocabulary = _instead(
        "change_vocabulary",
        "its vocabulary is that of its text decoder (an LLM's tokenizer, or model.tokenizer of a recipe); train from "
        "a recipe with the other LLM or tokenizer",
    )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ABSENT:
                raise AttributeError(f"{type(self).__name__} has no {name}, {ABSENT[name]}") from None
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        """Set as any module does; the ``spec_augment`` of NeMo's fine-tuning script goes where it is applied."""
        if name == "spec_augment":
            self._augment_features(value)
        else:
            super().__setattr__(name, value)

    def _augment_features(self, spec_augment: nn.Module | None) -> None:
        cfg = self.cfg.perception
        if spec_augment is not None and cfg.state_cache:
            raise ValueError(
                "spec_augment acts on features, and model.perception.state_cache skips the encoder that reads them: "
                "leave one of them null"
            )
        options = None
        if spec_augment is not None:
            options = {key: value for key, value in cast(DictConfig, spec_augment._cfg).items() if key != "_target_"}
        cfg.encoder.spec_augment = options
        cast(Any, self.perception.encoder).spec_augment = spec_augment

    def setup_optimization(
        self, optim_config: DictConfig | dict | None = None, optim_kwargs: dict[str, Any] | None = None
    ) -> tuple[Any, Any]:
        """Make optimizer and schedule, as NeMo's method does; the length of the schedule must be known in steps.

        Raises:
            ValueError: the model only answers (8 bits, merged LoRA, packed weights); or the length is not known: the
                data are a stream, in batches of any size, so epochs do not tell.
        """
        if is_int8(self):
            raise ValueError("weights of 8 bits learn nothing: train the model that is loaded without int8:")
        if has_merged_lora(self, self.cfg.get("lora")):
            raise ValueError("merged LoRA learns nothing: train a model that is loaded without answers_only")
        if is_packed(self):
            raise ValueError("packed weights learn nothing: train a model that is loaded without answers_only")
        config = optim_config if optim_config is not None else self.cfg.optim or {}
        sched = config.get("sched")
        endless = self._trainer is not None and self._trainer.max_steps < 0
        if sched and sched.get("max_steps") is None and endless:
            raise ValueError(
                f"the schedule {sched.get('name')} needs to know how many steps there will be: set trainer.max_steps "
                "(or model.optim.sched.max_steps); epochs do not tell, for the data are a stream"
            )
        return super().setup_optimization(optim_config, optim_kwargs)

    # transcription ---------------------------------------------------------------------------------------------------

    def transcribe(
        self,
        audio: str | Path | list | np.ndarray | Tensor | DataLoader,
        use_lhotse: bool = True,
        batch_size: int = 4,
        return_hypotheses: bool = False,
        num_workers: int = 0,
        channel_selector: int | str | None = None,
        augmentor: DictConfig | None = None,
        verbose: bool = True,
        timestamps: bool | None = None,
        override_config: TranscribeConfig | None = None,
        **options,
    ) -> list[str] | list[Hypothesis]:
        """Transcribe with NeMo's arguments, and those of `SpeechLMTranscribeConfig`.

        Args:
            audio: path(s) of audio files, arrays or tensors of samples at 16 kHz, rows, the path of a manifest (see
                `conversations_of`), or a dataloader of batches.
            return_hypotheses: NeMo ``Hypothesis`` objects (text, token ids, and in ``interventions`` what guards did)
                instead of strings.
            timestamps: the same with ``timestamp``, the times of words and segments (see `hypothesis_of`), by CTC's
                alignment of the transcript with the audio, whatever decoder gave it.
            override_config: all settings in one, in the place of the other arguments.

        Raises:
            TypeError: an argument is unknown.
            ValueError: a setting is one that a speech LM does not have (``augmentor``, …), or cannot be; it is named.
                Or there are to be times and the model has no CTC that hears words, or a line asks for something else
                than a transcript; or the model is in training mode.
            nemo_speechllm.data.conversation.AudioError: an audio cannot be read; it is named.

        Example:
            >>> from nemo_speechllm.models import load_model
            >>> model = load_model("instruct_las_digits")
            >>> model.transcribe("tests/recordings/digits_theo.flac", verbose=False)
            ['three one four one five']
        """
        given = dict(
            use_lhotse=use_lhotse,
            batch_size=batch_size,
            return_hypotheses=return_hypotheses,
            num_workers=num_workers,
            channel_selector=channel_selector,
            augmentor=augmentor,
            verbose=verbose,
            timestamps=timestamps,
            **options,
        )
        trcfg = transcription_config(given, override_config)
        answers = joined_pieces(chain.from_iterable(self._answered(audio, trcfg)))
        return self._transcribe_output_processing(list(answers), trcfg)

    def transcribe_generator(
        self,
        audio: str | Path | list | np.ndarray | Tensor | DataLoader,
        override_config: TranscribeConfig | None = None,
    ) -> Iterator[list]:
        """Transcribe, and yield text as it comes: a list for each batch, of what `transcribe` returns in one.

        A list has an item for each piece: a recording that is longer than ``generation.max_audio_seconds`` comes piece
        by piece, read from its file meanwhile, so that memory does not depend on its length; all others are one piece.

        Args:
            audio: see `transcribe`.
            override_config: settings; with ``return_hypotheses`` an item tells its ``recording``, the number of what
                was given, from 0, ``start`` and ``end``, its seconds in that, and whether it is the last one of it
                (``is_last``). Times of words are those in the recording, too.

        Example:
            >>> from nemo_speechllm.models import load_model
            >>> model = load_model("instruct_las_digits")
            >>> settings = model.get_transcribe_config()
            >>> settings.verbose = False
            >>> for texts in model.transcribe_generator("tests/recordings/digits_theo.flac", settings):
            ...     print(*texts)
            three one four one five
        """
        trcfg = override_config or self.get_transcribe_config()
        recording = 0
        for pieces in self._answered(audio, trcfg):
            items = self._transcribe_output_processing([joined([p.answer], [p.start]) for p in pieces], trcfg)
            for piece, item in zip(pieces, items, strict=True):
                if isinstance(item, Hypothesis):
                    vars(item).update(recording=recording, start=piece.start, end=piece.end, is_last=piece.is_last)
                recording += piece.is_last
            yield items

    def _answered(self, audio: Any, trcfg: TranscribeConfig) -> Iterator[list[AnsweredPiece]]:
        """Yield the answers to the pieces of what was given, batch by batch.

        NeMo's own changes the model's mode and the verbosity of the log until it has ended, also for the threads
        beside it.
        """
        check_settings(trcfg)
        if isinstance(audio, DataLoader):
            check_takes_settings(trcfg)
        loader = audio if isinstance(audio, DataLoader) else self._transcribe_input_processing(audio, trcfg)
        known = None if loader is audio else cast(list[Conversation], loader.dataset)
        with seconds_bar(known, trcfg.verbose) as bar:
            for batch in loader:
                for pieces in self._transcribe_forward(batch, trcfg):
                    bar.update(sum(piece.end - piece.start for piece in pieces))
                    yield pieces

    def _transcribe_input_processing(self, audio: Any, trcfg: TranscribeConfig) -> DataLoader:
        conversations = self._conversations_of(audio, trcfg)
        for purpose in OF_WORDS:  # before any of them is answered
            if getattr(trcfg, purpose, None):
                require_transcript(self, conversations, purpose)
        return self._setup_transcribe_dataloader({"conversations": conversations, "transcribe": trcfg})

    def _setup_transcribe_dataloader(self, config: dict) -> DataLoader:
        """Return a loader of conversations in lists.

        Workers load audio that is not read piece by piece; without any all is loaded when it is needed.
        """
        trcfg = config["transcribe"]
        workers = int(trcfg.num_workers or 0)
        loaded = partial(_loaded, max_seconds=self.cfg.generation.max_audio_seconds)
        return DataLoader(
            config["conversations"],
            batch_size=int(trcfg.batch_size),
            num_workers=workers,
            prefetch_factor=1 if workers else None,
            collate_fn=loaded if workers else list,
        )

    def _conversations_of(self, audio: Any, trcfg: TranscribeConfig) -> list[Conversation]:
        """Return whatever ``transcribe`` was given as conversations that await an answer."""
        return conversations_of(audio, self.builder, trcfg.channel_selector, partial(manifest_keys, config=trcfg))

    def _transcribe_forward(
        self, batch: list[Conversation] | ConversationBatch, trcfg: TranscribeConfig
    ) -> Iterator[list[AnsweredPiece]]:
        names = ("max_new_tokens", "beam_size", "decoder")
        options = generation_options(self.cfg.generation, *(getattr(trcfg, name, None) for name in names))
        options |= {name: bool(getattr(trcfg, name, None)) for name in OF_WORDS}
        options["batch_duration"] = getattr(trcfg, "batch_duration", None)
        if isinstance(batch, ConversationBatch):  # of a caller's own loader
            return self.answering.answer_pieces(batch.loaded(), len(batch.conversations), **options)
        return self.answering.answer_pieces(batch, trcfg.batch_size, **options)

    def _transcribe_output_processing(self, outputs: list[Answer], trcfg: TranscribeConfig) -> list:
        if trcfg.return_hypotheses or trcfg.timestamps or getattr(trcfg, "confidence", None):
            return [hypothesis_of(answer, bool(trcfg.timestamps)) for answer in outputs]
        return [answer.text for answer in outputs]

    def predict_step(self, batch: ConversationBatch, batch_idx: int, dataloader_idx: int = 0) -> list[tuple]:
        """Return pairs of what was read, a Lhotse cut, and the ``Hypothesis``, for NeMo's ``ASRPredictionWriter``."""
        options = generation_options(self.cfg.generation)
        answers = self.answering.answer(batch.loaded(), len(batch.conversations), **options)
        cuts = [item.audios[0].source if item.audios else item.id for item in batch.conversations]
        return list(zip(cuts, map(hypothesis_of, answers), strict=True))

    @classmethod
    def get_transcribe_config(cls) -> SpeechLMTranscribeConfig:
        """Return default settings of `transcribe`."""
        return SpeechLMTranscribeConfig()

    # decoding --------------------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> nn.Module:
        """The speech encoder."""
        return self.perception.encoder

    @property
    def cur_decoder(self) -> str:
        """What answers, ``llm`` or ``ctc``."""
        return self.cfg.generation.decoder or self.trained_decoder

    @property
    def trained_decoder(self) -> str:
        """What the model was trained to answer with, ``llm`` or, where the LLM had no weight in the loss, ``ctc``."""
        return "llm" if self.cfg.loss.lm_weight > 0 else "ctc"

    def change_decoding_strategy(
        self,
        decoding_cfg: DictConfig | dict | None = None,
        decoder_type: str | None = None,
        verbose: bool = True,
    ) -> None:
        """Choose what answers; other decoding settings than NeMo's defaults, which ask for nothing, are refused.

        Args:
            decoding_cfg: settings of NeMo's CTC, transducer or AED decoding, of which a speech LM has none.
            decoder_type: ``ctc``, the model's CTC head, ``llm`` or None.
            verbose: not read: nothing is printed.

        Raises:
            ValueError: a setting differs from NeMo's default, the decoder is neither, or the model has no CTC.
        """
        if decoder_type not in (None, "llm", "ctc"):
            raise ValueError(
                f"decoder_type={decoder_type}: {type(self).__name__} has llm and, where it was trained with it, ctc"
            )
        if decoder_type == "ctc":
            require_transcripts(self, "decoder_type=ctc")
        differing = [*differing_settings(decoding_cfg), *differing_beside(decoding_cfg)]
        if differing:
            raise ValueError(
                f"{type(self).__name__} has none of NeMo's decoding settings, and these were asked for: "
                f"{', '.join(differing)}. Its own are model.generation (beam_size, max_new_tokens, …), and the "
                "arguments of transcribe (timestamps=True gives times of words); it gives one answer, without n-best "
                "list, confidence or languages"
            )
        if decoder_type is not None:
            self.cfg.generation.decoder = decoder_type

    def change_attention_model(
        self, self_attention_model: str | None = None, att_context_size: list[int] | None = None, **options: Any
    ) -> None:
        """Accept that nothing is to change.

        Raises:
            NotImplementedError: something is.
        """
        if self_attention_model is not None or att_context_size is not None:
            raise NotImplementedError(
                f"{type(self).__name__} keeps the attention its encoder was trained with: leave self_attention_model "
                "and att_context_size unset (model_change.conformer); long recordings are cut at pauses, see "
                "model.generation.max_audio_seconds"
            )

    # batch sizes -----------------------------------------------------------------------------------------------------

    @property
    def oomptimizer_schema(self) -> dict[str, Any]:
        """What NeMo's OOMptimizer makes artificial batches of."""
        return schema_of(self.builder, self.tokenizer)


def _loaded(conversations: list[Conversation], max_seconds: float | None) -> list[Conversation]:
    return [item if is_cut(item, max_seconds) else item.loaded() for item in conversations]
