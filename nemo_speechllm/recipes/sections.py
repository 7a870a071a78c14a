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

"""The sections of a recipe's ``model``: what is built, what is learned, what is asked and how it is answered.

The line above a setting, or beside it, is its meaning; `setting` has its default and its range. A null, where one may
be given, turns off what the setting is for, unless it says otherwise.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from nemo_speechllm.recipes.nemo import Built, SpectrogramAugmentation, conformer_arguments
from nemo_speechllm.recipes.settings import SettingError, setting, written

# what is built ---------------------------------------------------------------------------


@dataclass
class LLM:
    """The language model that reads text and audio."""

    pretrained: str | None = setting()  # asset name, folder, .gguf file or hub id; null: the checkpoint holds it
    dtype: str = setting("float32")  # torch dtype of the weights; bfloat16 on a GPU
    pretrained_weights: bool = setting(True)  # false: random weights of the same architecture
    # in training compute each layer anew for its gradient: a quarter more time, and only a layer's memory at a time
    activation_checkpointing: bool = setting(False)
    embed: bool = setting(False)  # put the weights into every checkpoint, also where they are frozen
    fingerprint: str | None = setting(None)  # of the reference's weights
    by_reference: bool | None = setting(None)  # whether the checkpoint leaves the weights out


@dataclass
class LoRA:
    """Low-rank adapters in the LLM (2106.09685)."""

    r: int = setting(at_least=0)  # rank; 0: none
    alpha: float | None = setting(None, above=0)  # scale of what they add, over the rank; null: the rank
    dropout: float = setting(0.0, at_least=0, below=1)  # of what they read
    target_modules: list[str] = setting()  # names of the LLM's linear layers


def _any_keys(given: dict[str, Any]) -> None:
    """Leave it to a plug-in that has no section of its own in `ENCODERS` or `ADAPTERS` to check its settings."""


@dataclass
class Encoder:
    """What an encoder of any type has."""

    type: str = setting()
    pretrained: str | None = setting(None)  # asset name, folder, .nemo file, hub id or NeMo name; null: see config
    config: Any = setting(None)  # to build it with random weights; else filled in, for checkpoints
    spec_augment: SpectrogramAugmentation | None = setting(None)  # on the features, in training; not with state_cache
    embed: bool = setting(False)  # put the weights into every checkpoint, also where they are frozen
    fingerprint: str | None = setting(None)  # of the reference's weights
    by_reference: bool | None = setting(None)  # whether the checkpoint leaves the weights out


@dataclass
class WhisperEncoder(Encoder):
    """Whisper's encoder."""

    type: str = setting("whisper")
    config: dict[str, Any] | None = setting(None)  # `model` and `feature_extractor` as Hugging Face has them
    trim: bool = setting(True)  # encode each clip at its own length instead of Whisper's 30 s window
    taps: list[int] | None = setting(None, at_least=0)  # layers whose states stand side by side; null: the last


@dataclass
class NeMoEncoderConfig:
    """What a NeMo encoder is built of."""

    preprocessor: Built = setting(Built)
    encoder: Built = setting(Built)


@dataclass
class NeMoEncoder(Encoder):
    """The encoder of a NeMo ASR model."""

    type: str = setting("nemo")
    config: NeMoEncoderConfig | None = setting(None)


@dataclass
class OtherEncoder(Encoder):
    """A plug-in's, with its own settings."""

    beside: ClassVar = _any_keys


ENCODERS: dict[str, type] = {"whisper": WhisperEncoder, "nemo": NeMoEncoder}


@dataclass
class ConformerAdapter:
    """SALM's modality adapter: NeMo's ``ConformerEncoder``, whose arguments stand beside ``type``."""

    beside: ClassVar = conformer_arguments

    type: str = setting("conformer")


@dataclass
class QFormerAdapter:
    """DeSTA2's: queries that attend to the states of each tapped layer."""

    type: str = setting("qformer")
    n_layers: int = setting(2, at_least=1)  # blocks, shared by all taps
    n_queries: int = setting(64, at_least=1)  # embeddings for each 30 s of audio
    n_heads: int = setting(8, at_least=1)  # of attention; they divide the encoder's width
    dropout: float = setting(0.1, at_least=0, below=1)
    standardize: bool = setting(False)  # bring the states' features to mean 0 and variance 1 first


@dataclass
class OtherAdapter:
    """A plug-in's, with its own settings."""

    beside: ClassVar = _any_keys

    type: str = setting()


ADAPTERS: dict[str, type] = {"conformer": ConformerAdapter, "qformer": QFormerAdapter}


@dataclass
class Perception:
    """From audio to what the decoder reads: encoder, stack of frames, adapter, projection."""

    encoder: dict[str, Any] = setting(types=ENCODERS, other=OtherEncoder)
    stack: int = setting(1, at_least=1)  # so many of the encoder's states become one
    adapter: dict[str, Any] | None = setting(None, types=ADAPTERS, other=OtherAdapter)
    state_mask: SpectrogramAugmentation | None = setting(None)  # on the encoder's states; works with cached ones
    state_cache: str | None = setting(None)  # folder for a frozen encoder's states: it is run in the first epoch alone


@dataclass
class WhisperPerception(Perception):
    """Of a model whose encoder is Whisper's."""

    encoder: dict[str, Any] = setting(types={"whisper": WhisperEncoder})


@dataclass
class CTCHead:
    """The CTC head beside the LLM."""

    tokenizer: str | None = setting(None)  # SentencePiece model, or a .nemo whose head's it is; null: stage 1's


@dataclass
class CTCPosterior:
    """The LLM reads CTC's posteriors, and may learn to from text alone (2505.11352, 2511.03310)."""

    # .npz of examples/data/measure_posteriors.py, or a .nemo that was trained with one; null: no lines of text
    bank: str | None = setting(None)
    error_rate: list[float] = setting([0.0, 0.6], at_least=0, length=2)  # errors per piece of a text, from and to
    seed: int = setting(0)

    @staticmethod
    def check(settings: dict[str, Any], key: str) -> None:
        """Refuse a range that ends before it begins."""
        low, high = settings["error_rate"]
        if low > high:
            raise SettingError(f"{key}.error_rate is [{low}, {high}]; the second number must be at least the first")


@dataclass
class TextDecoder:
    """InstructLAS's Transformer decoder, from scratch."""

    n_layers: int = setting(at_least=1)
    d_model: int = setting(at_least=2)
    n_heads: int = setting(at_least=1)
    ff_expansion_factor: int = setting(4, at_least=1)  # width of the feed-forward layers, over d_model
    dropout: float = setting(0.1, at_least=0, below=1)

    @staticmethod
    def check(settings: dict[str, Any], key: str) -> None:
        """Refuse a width that heads and sinusoids do not divide."""
        width, heads = settings["d_model"], settings["n_heads"]
        if width % heads or width % 2:
            raise SettingError(f"{key}.d_model={width} must be even and a multiple of {key}.n_heads={heads}")


@dataclass
class Tokenizer:
    """InstructLAS's SentencePiece tokenizer."""

    dir: str | None = setting(None)  # folder from examples/data/train_tokenizer.py --instructions
    model_file: str | None = written()  # its name in a checkpoint


# what is learned ---------------------------------------------------------------------------


@dataclass
class Loss:
    """Weights of the losses of a decoder-only model."""

    lm_weight: float = setting(1.0, at_least=0)  # cross-entropy of the answer and its end; 0: the LLM is not run
    ctc_weight: float = setting(0.0, at_least=0)  # CTC of the audio embeddings against the LLM's token embeddings


@dataclass
class CTCHeadLoss(Loss):
    """And of CTC by a head of its own."""

    encoder_ctc_weight: float = setting(0.0, at_least=0)


@dataclass
class TextEncoder:
    """A frozen sentence encoder: InstructLAS's decoder attends to its states of the instruction beside the audio's."""

    pretrained: str = setting()  # asset name, folder or hub id
    embed: bool = setting(False)  # put the weights into every checkpoint, though they are frozen
    fingerprint: str | None = setting(None)  # of the reference's weights
    by_reference: bool | None = setting(None)  # whether the checkpoint leaves the weights out


@dataclass
class InstructLASLoss:
    """Weights of the losses of InstructLAS, and what its cross-entropy is taken of."""

    lm_weight: float = setting(1.0, at_least=0)  # the decoder's cross-entropy; 0: the decoder is not run
    instruction_weight: float = setting(0.0, at_least=0)  # of the instruction's tokens in it; the answer's have 1
    label_smoothing: float = setting(0.0, at_least=0, below=1)  # in training alone
    encoder_ctc_weight: float = setting(0.0, at_least=0)  # CTC of what is said, whatever the answer; 0: no CTC head


@dataclass
class TextMask:
    """The LLM reads a mask in place of some of the answer's tokens, drawn anew each epoch (2307.11795)."""

    fraction: float = setting(0.0, at_least=0, at_most=1)
    seed: int = setting(0)
    token: str | None = setting(None)  # what is read instead; null: the tokenizer's unknown token


@dataclass
class Targets:
    """What gives the answers of the skills that no rule computes."""

    kind: str = setting("extractive", one_of=("extractive", "endpoint", "local"))
    url: str | None = setting(None)  # of an endpoint
    model: str | None = setting(None)  # the endpoint's or local LLM
    cache: str | None = setting(None)  # folder for what the LLM writes

    @staticmethod
    def check(settings: dict[str, Any], key: str) -> None:
        """Refuse an LLM that cannot be asked."""
        needed = {"extractive": (), "endpoint": ("url", "model", "cache"), "local": ("model", "cache")}
        for name in needed[settings["kind"]]:
            if settings[name] is None:
                raise SettingError(f"{key}.{name} is missing; kind={settings['kind']} needs it, give {key}.{name}=...")


@dataclass
class InstructionSampling:
    """An instruction drawn for each utterance and epoch, and its answer computed from the transcript (2309.09843)."""

    skills: list[str] | None = setting(None)  # null: all of nemo_speechllm/prompts/skills.py
    alpha: float = setting(56.0, at_least=0)  # weight of transcribe (section 3)
    beta: float = setting(4.0, at_least=0)  # of summarise and keywords; the others weigh 1
    split: str = setting(
        "seen", one_of=("seen", "held_out", "unseen")
    )  # see nemo_speechllm/prompts/instruction_pools.py
    per_audio: int = setting(1, at_least=1)  # instructions drawn for an utterance at a time, all in its batch
    seed: int = setting(0)
    targets: Targets = setting(Targets)  # of summarise and keywords


@dataclass
class KeywordContext:
    """Speech in-context training (2310.09424): keyword lists drawn anew for each utterance and epoch."""

    probability: float = setting(0.5, at_least=0, at_most=1)  # of a list
    words: int = setting(64, at_least=1)  # in a list
    positive_ratio: float = setting(0.1, at_least=0, at_most=1)  # of them from the answer
    distractors_only: float = setting(0.1, at_least=0, at_most=1)  # share of the lists without a word of the answer
    max_count: int | None = setting(None, at_least=1)  # only words that at most so many training texts hold; null: any
    vocabulary: str | None = setting(None)  # text file with a word a line; null: the words of the training manifests
    seed: int = setting(0)

    @staticmethod
    def check(settings: dict[str, Any], key: str) -> None:
        """Refuse lists that would never hold a word of the answer, though some should."""
        words, ratio = settings["words"], settings["positive_ratio"]
        if 0 < words * ratio < 1:
            raise SettingError(
                f"{key}: {ratio:g} (positive_ratio) of {words} words is less than one, so no list would hold a word "
                "of the answer; give more words, a higher ratio, or the ratio 0"
            )


# what is asked ---------------------------------------------------------------------------


@dataclass
class Prompt:
    """What is asked where neither the data nor the user says."""

    instructions: dict[str, str] = setting({})  # by task; with {lang}, {target_lang}, {target_language}
    keywords: str = setting("")  # what stands before the instruction, with {keywords}; empty: no place for them


@dataclass
class ChatPrompt(Prompt):
    """And how an LLM is told."""

    system_prompt: str | None = setting(None)  # null: the chat template's
    chat_template: str | None = setting(None)  # null: the tokenizer's


@dataclass
class Transcription:
    """What DeSTA2's LLM reads beside the audio: the manifest's transcription, or what Whisper's decoder hears."""

    min_voice_seconds: float = setting(0.2, at_least=0)  # no stretch of voice as long, and nothing is transcribed
    cache: str | None = setting(None)  # folder that keeps those Whisper makes while training
