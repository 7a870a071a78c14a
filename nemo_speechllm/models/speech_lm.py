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

"""The base of every model here: data in, training and validation steps, transcription, metrics."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Trainer
from nemo.collections.asr.parts.mixins.transcription import TranscribeConfig
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from nemo.core.classes.common import PretrainedModelInfo
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from nemo_speechllm.checkpointing.checkpoint import CheckpointError, ReferencedCheckpointMixin
from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import (
    ConversationBatch,
    ConversationBuilder,
    ConversationDataset,
    in_batches,
    task_of,
    written_language,
)
from nemo_speechllm.metrics.error_rate import AUTO
from nemo_speechllm.metrics.tally import ErrorTally
from nemo_speechllm.metrics.translation import check_metrics
from nemo_speechllm.models.answers import (
    Answer,
    AnswerLock,
    GuardedAnswersMixin,
    check_generation,
    generation_options,
)
from nemo_speechllm.models.inputs import conversations_of
from nemo_speechllm.models.nemo_interface import NeMoInterface
from nemo_speechllm.models.segmentation import split_long_audio
from nemo_speechllm.models.transcription import (
    SpeechLMTranscribeConfig,
    check_settings,
    check_takes_settings,
    manifest_keys,
    transcription_config,
)
from nemo_speechllm.modules.collectives import gathered, world_size
from nemo_speechllm.modules.llm import freeze_by_pattern
from nemo_speechllm.modules.losses import Mean, no_loss, parts_of_all
from nemo_speechllm.training.non_finite import STOP, check_policy, judge_validation
from nemo_speechllm.training.resume import ResumableTrainingMixin
from nemo_speechllm.training.sharding import share_batches
from nemo_speechllm.training.transforms import Transform, training_transforms

CHECKPOINT_FOLDER = Path(__file__).parent.parent / "checkpoints"


class SpeechLM(GuardedAnswersMixin, ReferencedCheckpointMixin, ResumableTrainingMixin, NeMoInterface):
    """A model that answers conversations of text and audio.

    A subclass builds its modules in `build_modules` and implements `loss` and `generate_batch`. Its config has the
    sections ``prompt``, ``freeze_params``, ``generation``, ``train_ds``, ``validation_ds``, ``optim`` and its own.
    With a section ``instruction_sampling`` or ``keyword_context`` it trains on instructions (see `InstructionSampler`)
    and on keywords (see `KeywordContext`); validation asks what the data say.

    Args:
        cfg: the recipe's ``model`` section.
        trainer: Lightning trainer, if there is one.

    Raises:
        ValueError: an entry of ``freeze_params`` matches no parameter, or ``generation`` has a setting that nothing
            reads.
    """

    def __init__(self, cfg: DictConfig, trainer: Trainer | None = None):
        if isinstance(cfg, dict):  # as a Lightning checkpoint holds it
            cfg = OmegaConf.create(cfg)
        # the dataloaders need the tokenizer, which is not there before ModelPT.__init__ has run
        for section in ("train_ds", "validation_ds", "test_ds"):
            if cfg.get(section):
                with open_dict(cfg[section]):
                    cfg[section].defer_setup = True
        with open_dict(cfg):
            cfg.train_ds = cfg.get("train_ds") or None
        check_generation(cfg.generation)
        check_policy(cfg.get("non_finite", STOP))
        super().__init__(cfg, trainer)
        # transcribe_speech_parallel.py asks it how to read what it transcribes, and takes no None
        if self.cfg.train_ds is None:
            with open_dict(self.cfg):
                self.cfg.train_ds = {}
        self.build_modules()
        self.builder = ConversationBuilder(self.cfg.prompt)
        self._transforms: list[Transform] = []
        freeze_by_pattern(self, list(self.cfg.get("freeze_params") or []))
        self._validation_tallies: dict[int, ErrorTally] = {}
        self._test_tallies: dict[int, ErrorTally] = {}
        self._answering = AnswerLock()
        # a new model is there to be trained, a restored one to be asked
        self.train(not self._is_model_being_restored())

    @abstractmethod
    def build_modules(self) -> None:
        """Make ``self.tokenizer`` and the submodules from ``self.cfg``."""

    @abstractmethod
    def loss(self, batch: ConversationBatch) -> dict[str, Tensor]:
        """Return losses of a batch with answers: ``loss``, what is optimised, and its parts by name."""

    @abstractmethod
    def generate_batch(
        self, batch: ConversationBatch, max_new_tokens: int, beam_size: int, decoder: str | None = None
    ) -> list[Answer]:
        """Return answers to the conversations of a batch; their own answers, if any, are not read.

        Args:
            decoder: ``llm`` or ``ctc``; None: what the model was trained for.

        Raises:
            ValueError: ``decoder`` is ``ctc`` and the model has no CTC head.
        """

    def train(self, mode: bool = True) -> "SpeechLM":
        """Set what trains to training mode; a frozen encoder keeps its running statistics and has no dropout."""
        super().train(mode)
        for prefix in self.pretrained_parts:
            part = self.get_submodule(prefix)
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    # data ------------------------------------------------------------------------------------------------------------

    def setup_training_data(self, train_data_config: DictConfig) -> None:
        """Make the training data's loader from a section like ``train_ds``, and what is done to its batches."""
        self._update_dataset_config(dataset_name="train", config=train_data_config)
        self._train_dl = self._build_dataloader(train_data_config)
        self._transforms = training_transforms(self.cfg, train_data_config, self.builder)

    def setup_validation_data(self, val_data_config: DictConfig) -> None:
        """Make the validation data's loader from a section like ``validation_ds``.

        Raises:
            ValueError: its texts cannot be scored.
        """
        self._update_dataset_config(dataset_name="validation", config=val_data_config)
        self._validation_dl = self._build_evaluation_dataloader(val_data_config)
        self._check_metrics(val_data_config)

    def setup_test_data(self, test_data_config: DictConfig) -> None:
        """Make the test data's loader from a section like ``test_ds``.

        Raises:
            ValueError: its texts cannot be scored.
        """
        self._update_dataset_config(dataset_name="test", config=test_data_config)
        self._test_dl = self._build_evaluation_dataloader(test_data_config)
        self._check_metrics(test_data_config)

    def _setup_dataloader_from_config(self, config: DictConfig) -> DataLoader:
        """Return a dataloader to predict on, for NeMo's scripts."""
        return self._build_evaluation_dataloader(config)

    def _check_metrics(self, cfg: DictConfig) -> None:
        """Refuse, before any work, a data section whose texts could not be scored as `validation_step` will."""
        from nemo_speechllm.data.sources import translations_of  # imports NeMo's collections, which takes seconds

        check_metrics(self.cfg.get("normalizer", AUTO), translations_of(cfg))

    def _build_dataloader(self, cfg: DictConfig) -> DataLoader:
        return self._dataloader_of(cfg, self.global_rank, self._world_size)

    def _dataloader_of(self, cfg: DictConfig, rank: int, world_size: int) -> DataLoader:
        dataset = ConversationDataset(self.builder, skip_bad_audio=cfg.get("skip_bad_audio", False))
        return build_dataloader(cfg, dataset, self.tokenizer, rank, world_size)

    @property
    def _world_size(self) -> int:
        return self._trainer.world_size if self._trainer is not None else 1

    def _build_evaluation_dataloader(self, cfg: DictConfig) -> DataLoader:
        """Return a dataloader of the data once from end to end, also of several sources: Lhotse would go on for ever.

        Several processes share its batches.
        """
        given = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
        once = OmegaConf.create(given | {"force_finite": True})
        whole = self._dataloader_of(once, rank=0, world_size=1)
        return whole if self._world_size == 1 else share_batches(whole, self.global_rank, self._world_size)

    # training and validation -----------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Open the cache of encoder states. It serves training alone: what a user transcribes is not kept on disk."""
        super().on_fit_start()
        if not self.training:  # Lightning trains in the mode it finds, and a restored model is found in eval mode
            self.train()
        self.perception.cache_states(self.cfg.perception.get("state_cache"))

    def on_fit_end(self) -> None:
        """Close the cache of encoder states."""
        super().on_fit_end()
        self.perception.cache_states(None)

    def replayed_losses(self, batch: ConversationBatch, epoch: int) -> dict[str, Tensor]:
        """Return the losses that a training step had of a batch; see `nemo_speechllm.training.non_finite.replay`."""
        for transform in self._transforms:
            batch = transform(batch, epoch)
        return self.loss(batch)

    def training_step(self, batch: ConversationBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return one optimisation step's ``loss``, under that name; every part of it is logged."""
        losses = self.replayed_losses(batch, self.current_epoch)
        if world_size() > 1 and len(batch.audio) == 0:  # DDP waits for a gradient of every weight
            losses["loss"] = losses["loss"] + no_loss(self, batch.audio)
        size = len(batch.conversations)
        self.log("train_loss", losses["loss"], prog_bar=True, batch_size=size)
        self.log_dict({f"train_{k}": v for k, v in losses.items() if k != "loss"}, batch_size=size)
        if self._trainer is not None and self._trainer.optimizers:
            self.log("learning_rate", self._trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)
        return {"loss": losses["loss"]}

    def validation_step(self, batch: ConversationBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch's loss, word and character errors (on generated text) to the running counts."""
        self._tally(batch, self._validation_tallies.setdefault(dataloader_idx, ErrorTally()))

    def test_step(self, batch: ConversationBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do what `validation_step` does, of a test set."""
        self._tally(batch, self._test_tallies.setdefault(dataloader_idx, ErrorTally()))

    def _tally(self, batch: ConversationBatch, tally: ErrorTally) -> None:
        if batch.is_repeated:
            tally = ErrorTally()  # for nobody
        tally.count_loss(float(self.loss(batch)["loss"]), [conversation.id for conversation in batch.conversations])
        answers = [answer.text for answer in self.generate_batch(batch, **generation_options(self.cfg.generation))]
        # what is validated on has answers
        references = cast(list[str], [conversation.answer for conversation in batch.conversations])
        languages = [written_language(conversation.metadata) for conversation in batch.conversations]
        tally.count(answers, references, languages, self.cfg.get("normalizer", AUTO))
        for answer, reference, conversation, language in zip(
            answers, references, batch.conversations, languages, strict=True
        ):
            if task_of(conversation.metadata) == "ast":
                direction = (str(conversation.metadata.get("lang")), str(language))
                tally.count_translation(answer, reference, direction)

    def on_validation_epoch_end(self) -> None:
        """Log ``val_loss``, ``val_wer`` and ``val_cer``, over all ranks, for each validation set.

        Where answers are in several languages, in one set or in several, ``val_wer_<lang>`` and ``val_wer_macro`` of
        all sets together are logged as well, and the same of ``val_cer``. Of translations there are ``val_bleu`` and
        ``val_chrf``, in several directions ``val_bleu_<lang>-<target_lang>`` as well; ``val_wer`` counts them like
        transcripts.
        """
        self._log_tallies(self._validation_tallies, "val", self.get_validation_dataloader_prefix)

    def on_test_epoch_end(self) -> None:
        """Log ``test_loss``, ``test_wer``, …: what `on_validation_epoch_end` does, of the test sets."""
        self._log_tallies(self._test_tallies, "test", self.get_test_dataloader_prefix)

    def _log_tallies(self, counted: dict[int, ErrorTally], stage: str, prefix_of: Callable[[int], str]) -> None:
        """Log what was counted on all ranks, under the names of the stage, and start anew."""
        tallies = _sum_over_ranks(counted)
        judge_validation(
            [id for tally in tallies.values() for id in tally.without_loss], self.cfg.get("non_finite", STOP)
        )
        for index, tally in sorted(tallies.items()):
            prefix = prefix_of(index) if len(tallies) > 1 else ""
            metrics = {f"{stage}_{name}": value for name, value in tally.figures().items()}
            self.log_dict({f"{prefix}{name}": value for name, value in metrics.items()}, prog_bar=True)
            if prefix and index == 0:  # NeMo's names for checkpoint monitors mean the first set
                self.log_dict(metrics)
        languages = sum(tallies.values(), ErrorTally()).language_figures()
        self.log_dict({f"{stage}_{name}": value for name, value in languages.items()})
        counted.clear()

    def _weighted_sum(self, losses: dict[str, Mean]) -> dict[str, Tensor]:
        """Return the losses by name, and ``loss``: their sum with the recipe's weights.

        While several processes train, see `parts_of_all`.
        """
        weights = {str(name).replace("_weight", "_loss"): weight for name, weight in self.cfg.loss.items()}
        if self.training:
            values = parts_of_all(losses, sorted(name for name, weight in weights.items() if weight > 0))
        else:
            values = {name: loss.value for name, loss in losses.items()}
        return {"loss": sum(weights[name] * value for name, value in values.items()), **values}

    def _transcripts(self, batch: ConversationBatch) -> dict[int, str]:
        """Return what is said in those of the batch's audios where it is known, by the audio's place."""
        return batch.texts_by_audio(lambda conversation: conversation.metadata.get("text"))

    # answers ---------------------------------------------------------------------------------------------------------

    def generate(
        self,
        conversations: list[Conversation],
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        beam_size: int | None = None,
        decoder: str | None = None,
    ) -> list[Answer]:
        """Answer conversations, in order.

        What an item is answered does not depend on its batch, nor on threads beside this one.

        Args:
            conversations: text and audio; a closing assistant turn is not read.
            batch_size: how many are answered together, and of long recordings how many pieces: they are read one after
                the other, so that memory is bounded by this and by the length of a piece.
            max_new_tokens, beam_size, decoder: None takes the recipe's; ``decoder`` is ``llm`` or ``ctc``.

        Raises:
            ValueError: ``batch_size``, ``max_new_tokens`` or ``beam_size`` is less than 1, ``decoder`` is unknown, or
                ``ctc`` of a model that has no CTC head.
        """
        options = generation_options(self.cfg.generation, max_new_tokens, beam_size, decoder)
        return self._answers(conversations, batch_size, **options)

    @torch.inference_mode()
    def answer_losses(self, conversations: list[Conversation]) -> list[float]:
        """Return how surprised the decoder is by each conversation's own answer: cross-entropy in nats per token.

        The answer is read token by token as in training, so that small differences show which error rates hide.

        Raises:
            ValueError: the model was trained by CTC alone (``loss.lm_weight`` is 0), so its decoder says nothing.
        """
        if self.cfg.loss.lm_weight == 0:
            raise ValueError(
                f"this {type(self).__name__} was trained by CTC alone (model.loss.lm_weight is 0): its decoder has no "
                "loss"
            )
        collate = ConversationDataset(self.builder).collate
        with self._evaluation_mode():  # one by one: a batch has one mean for all
            return [float(self.loss(collate([item]).to(self.device))["lm_loss"]) for item in conversations]

    @contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        """Set evaluation mode, for one thread at a time; each module is then put back into the mode it had."""
        with self._answering.lock:
            training = [module for module in self.modules() if module.training]
            if training:
                self.eval()
            try:
                yield
            finally:
                for module in training:
                    module.training = True

    @torch.inference_mode()
    def _answers(self, conversations: Iterable[Conversation], batch_size: int, **options) -> list[Answer]:
        """Return answers to conversations.

        A long recording is cut at pauses; recordings are loaded when their turn comes, and a batch is of
        ``batch_size`` pieces, whosever they are.
        """
        collate = ConversationDataset(self.builder).collate
        counts: list[int] = []
        answers: list[Answer] = []
        for pieces in in_batches(self._pieces(conversations, counts), batch_size):
            batch = collate(pieces).to(self.device)
            with self._evaluation_mode():
                answers += self._guarded_answers(self._with_likely_keywords(batch), **options)
        of_pieces = iter(answers)
        return [_joined([next(of_pieces) for _ in range(count)]) for count in counts]

    def _pieces(self, conversations: Iterable[Conversation], counts: list[int]) -> Iterator[Conversation]:
        """Yield the pieces of all conversations, in order; add to ``counts`` how many a conversation has."""
        for conversation in conversations:
            pieces = split_long_audio(conversation, self.cfg.generation.get("max_audio_seconds"))
            counts.append(len(pieces))
            yield from pieces

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
            override_config: all settings in one, in the place of the other arguments.

        Raises:
            TypeError: an argument is unknown.
            ValueError: a setting is one that a speech LM does not have (``timestamps``, ``augmentor``, …), or cannot
                be; it is named.
            nemo_speechllm.data.conversation.AudioError: an audio cannot be read; it is named.
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
        return super().transcribe(audio, override_config=transcription_config(given, override_config))

    @torch.inference_mode()
    def transcribe_generator(
        self, audio: str | Path | list | np.ndarray | Tensor | DataLoader, override_config: TranscribeConfig | None
    ) -> Iterator[list]:
        """Transcribe, batch by batch.

        NeMo's own changes the model's mode and the verbosity of the log until it has ended, also for the threads
        beside it.
        """
        trcfg = override_config or self.get_transcribe_config()
        check_settings(trcfg)
        if isinstance(audio, DataLoader):
            check_takes_settings(trcfg)
        loader = audio if isinstance(audio, DataLoader) else self._transcribe_input_processing(audio, trcfg)
        for batch in tqdm(loader, desc="Transcribing", disable=not trcfg.verbose):
            yield self._transcribe_output_processing(self._transcribe_forward(batch, trcfg), trcfg)

    def _transcribe_input_processing(self, audio: Any, trcfg: TranscribeConfig) -> DataLoader:
        conversations = self._conversations_of(audio, trcfg)
        return self._setup_transcribe_dataloader({"conversations": conversations, "transcribe": trcfg})

    def _setup_transcribe_dataloader(self, config: dict) -> DataLoader:
        """Return a loader of conversations in lists.

        Workers load their audio; without any it is loaded when it is needed.
        """
        trcfg = config["transcribe"]
        workers = trcfg.num_workers or 0
        return DataLoader(
            config["conversations"],
            batch_size=trcfg.batch_size,
            num_workers=workers,
            prefetch_factor=1 if workers else None,
            collate_fn=_loaded if workers else list,
        )

    def _conversations_of(self, audio: Any, trcfg: TranscribeConfig) -> list[Conversation]:
        """Return whatever ``transcribe`` was given as conversations that await an answer."""
        return conversations_of(audio, self.builder, trcfg.channel_selector, partial(manifest_keys, config=trcfg))

    def _transcribe_forward(
        self, batch: list[Conversation] | ConversationBatch, trcfg: TranscribeConfig
    ) -> list[Answer]:
        names = ("max_new_tokens", "beam_size", "decoder")
        options = generation_options(self.cfg.generation, *(getattr(trcfg, name, None) for name in names))
        if isinstance(batch, ConversationBatch):  # of a caller's own loader
            return self._answers(batch.loaded(), len(batch.conversations), **options)
        return self._answers(batch, trcfg.batch_size, **options)

    def _transcribe_output_processing(self, outputs: list[Answer], trcfg: TranscribeConfig) -> list:
        return _hypotheses(outputs) if trcfg.return_hypotheses else [answer.text for answer in outputs]

    def predict_step(self, batch: ConversationBatch, batch_idx: int, dataloader_idx: int = 0) -> list[tuple]:
        """Return pairs of what was read, a Lhotse cut, and the ``Hypothesis``, for NeMo's ``ASRPredictionWriter``."""
        answers = self._answers(batch.loaded(), len(batch.conversations), **generation_options(self.cfg.generation))
        cuts = [item.audios[0].source if item.audios else item.id for item in batch.conversations]
        return list(zip(cuts, _hypotheses(answers), strict=True))

    @classmethod
    def get_transcribe_config(cls) -> SpeechLMTranscribeConfig:
        """Return default settings of `transcribe`."""
        return SpeechLMTranscribeConfig()

    # shipped checkpoints ---------------------------------------------------------------------------------------------

    @classmethod
    def list_available_models(cls) -> list[PretrainedModelInfo]:
        """Return the checkpoints of this class (`SpeechLM`: of any) that come with the package; see `from_pretrained`.

        A checkpoint's name begins with that of the module of its class: ``instruct_las_digits``.
        """
        pattern = "*.nemo" if cls is SpeechLM else f"{cls.__module__.rpartition('.')[2]}_*.nemo"
        return [_shipped_info(path, cls) for path in sorted(CHECKPOINT_FOLDER.glob(pattern))]

    @classmethod
    def from_pretrained(cls, model_name: str, *args, **kwargs):
        """Restore a shipped checkpoint by name (see `list_available_models`), or any NeMo hub id.

        Args:
            model_name: the name; other arguments are those of `restore_from`.

        Raises:
            CheckpointError: nothing is found under the name, or it cannot be restored.
        """
        shipped = [info.pretrained_model_name for info in cls.list_available_models()]
        if model_name in shipped:
            kwargs.pop("refresh_cache", None)
            return cls.restore_from(CHECKPOINT_FOLDER / f"{model_name}.nemo", *args, **kwargs)
        if "/" in model_name:
            try:
                return super().from_pretrained(model_name, *args, **kwargs)
            except CheckpointError:
                raise
            except Exception as error:  # of the hub, the network, the disk
                raise CheckpointError(
                    f"{model_name}: the model hub did not deliver it ({type(error).__name__}: {error}); check the "
                    "spelling and the network, log in with `hf auth login` if it is gated, or give the path of a "
                    ".nemo file to load_model"
                ) from error
        raise CheckpointError(
            f"no {cls.__name__} is named {model_name!r}; shipped are {shipped}, or give a hub id org/name"
        )


def _shipped_info(path: Path, model_class: type) -> PretrainedModelInfo:
    """Return a checkpoint as NeMo lists models.

    NeMo copies what it restores by name into a cache, by location and description: both change with the file.
    """
    file = path.stat()
    return PretrainedModelInfo(
        pretrained_model_name=path.stem,
        description=(
            f"shipped with the package, {file.st_size} bytes, written {file.st_mtime_ns}; see its page in docs"
        ),
        location=path.absolute().as_uri(),
        class_=model_class,
    )


def _loaded(conversations: list[Conversation]) -> list[Conversation]:
    return [conversation.loaded() for conversation in conversations]


def _joined(answers: list[Answer]) -> Answer:
    """Return the answers to consecutive pieces of one recording as one."""
    text = " ".join(answer.text for answer in answers if answer.text)
    return Answer(
        text,
        [i for answer in answers for i in answer.ids],
        any(answer.truncated for answer in answers),
        tuple(intervention for answer in answers for intervention in answer.interventions),
    )


def _hypotheses(answers: list[Answer]) -> list[Hypothesis]:
    hypotheses = [Hypothesis(score=0.0, y_sequence=torch.tensor(a.ids), text=a.text) for a in answers]
    for hypothesis, answer in zip(hypotheses, answers, strict=True):
        hypothesis.interventions = answer.interventions
    return hypotheses


def _sum_over_ranks(tallies: dict[int, ErrorTally]) -> dict[int, ErrorTally]:
    """Return tallies by validation set, over all ranks.

    A rank may have seen other sets and other languages than its neighbour.
    """
    of_ranks = gathered(tallies)
    sets = {index for of_rank in of_ranks for index in of_rank}
    return {index: sum((of_rank.get(index, ErrorTally()) for of_rank in of_ranks), ErrorTally()) for index in sets}
