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
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Trainer
from nemo.core.classes.common import PretrainedModelInfo
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor
from torch.utils.data import DataLoader

from nemo_speechllm.checkpointing.checkpoint import ReferencedModel
from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.checkpointing.renamed import current_pattern
from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.conversation_check import check_conversations
from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder, ConversationDataset
from nemo_speechllm.metrics.tally import ErrorTally
from nemo_speechllm.models.answer_scores import require_trained_decoder
from nemo_speechllm.models.answering import Answering, require_evaluation_mode
from nemo_speechllm.models.answers import Answer, generation_options
from nemo_speechllm.models.nemo_interface import NeMoInterface
from nemo_speechllm.models.shipped import shipped_info, shipped_models
from nemo_speechllm.models.validation import check_scores, count_batch, log_losses, log_tallies, logged_names
from nemo_speechllm.modules.collectives import world_size
from nemo_speechllm.modules.ctc import CTC
from nemo_speechllm.modules.linear import use_onednn
from nemo_speechllm.modules.llm import freeze_by_pattern
from nemo_speechllm.modules.losses import Mean, no_loss, over_all, parts_of_all
from nemo_speechllm.modules.perception import Perception, PerceptionOutput, States
from nemo_speechllm.recipes import as_config, complete
from nemo_speechllm.recipes.data import Data
from nemo_speechllm.recipes.models import SpeechLMRecipe
from nemo_speechllm.training.monitors import check_monitors
from nemo_speechllm.training.resume import ResumableModel
from nemo_speechllm.training.sharding import share_batches
from nemo_speechllm.training.transforms import Transform, training_transforms


class SpeechLM(ReferencedModel, ResumableModel, NeMoInterface):
    """A model that answers conversations of text and audio.

    A batch's audio goes through `perceive` once; `losses` and `generate_answers` are given what it returns. A subclass
    builds its modules in `build_modules` and implements these two. Its config is ``recipe``, a dataclass: what is
    given of it is checked, and has the defaults of the rest (see `recipes`). With a section ``instruction_sampling``
    or ``keyword_context`` it trains on instructions (see `InstructionSampler`) and on keywords (see `KeywordContext`);
    validation asks what the data say.

    Args:
        cfg: the recipe's ``model`` section.
        trainer: Lightning trainer, if there is one.

    Raises:
        SettingError: the config has a setting that nothing reads, or one that cannot be.
        ValueError: an entry of ``freeze_params`` matches no parameter.
    """

    recipe: ClassVar[type] = SpeechLMRecipe
    deaf_remedy: ClassVar[str] = "train longer, on more voices"  # what a model that does not listen is told
    perception: Perception

    def __init__(self, cfg: DictConfig, trainer: Trainer | None = None):
        cfg = complete(self.recipe, self.inert_config(cfg))
        # the dataloaders need the tokenizer, which is not there before ModelPT.__init__ has run
        for section in ("train_ds", "validation_ds", "test_ds"):
            if cfg[section]:
                cfg[section].defer_setup = True
        cfg.train_ds = cfg.train_ds or None
        super().__init__(cfg, trainer)
        # transcribe_speech_parallel.py asks it how to read what it transcribes, and takes no None
        if self.cfg.train_ds is None:
            with open_dict(self.cfg):
                self.cfg.train_ds = {}
        self.build_modules()
        use_onednn(self)
        self.builder = ConversationBuilder(self.cfg.prompt)
        self._transforms: list[Transform] = []
        freeze_by_pattern(self, list(map(current_pattern, self.cfg.freeze_params or [])))
        self._validation_tallies: dict[int, ErrorTally] = {}
        self._test_tallies: dict[int, ErrorTally] = {}
        self.answering = Answering(self)
        # a new model is there to be trained, a restored one to be asked
        self.train(not self._is_model_being_restored())

    @abstractmethod
    def build_modules(self) -> None:
        """Make ``self.tokenizer`` and the submodules from ``self.cfg``."""

    @property
    @abstractmethod
    def ctc(self) -> CTC | None:
        """What reads text in audio by CTC, where the model was trained with it: for keyword lists, guards, drafts."""

    @abstractmethod
    def ctc_states(self, perceived: PerceptionOutput) -> States:
        """Return what `ctc` reads, (N, T, d) and lengths (N,)."""

    @abstractmethod
    def losses(self, batch: ConversationBatch, perceived: PerceptionOutput) -> dict[str, Mean]:
        """Return the losses, by name, of the answers of a batch; their weights are those of ``loss``."""

    def lm_loss(self, batch: ConversationBatch, perceived: PerceptionOutput) -> Mean:
        """Return the text decoder's loss alone, for one that is asked again with other audio."""
        return self.losses(batch, perceived)["lm_loss"]

    @abstractmethod
    def generate_answers(
        self, batch: ConversationBatch, perceived: PerceptionOutput, max_new_tokens: int, beam_size: int
    ) -> list[Answer]:
        """Return the text decoder's answers to a batch; the conversations' own answers, if any, are not read."""

    def perceive(self, batch: ConversationBatch) -> PerceptionOutput:
        """Encode the batch's N audios and adapt them to the text decoder, once for all that is done with the batch.

        Raises:
            ValueError: a text stands in the place of an audio, and the model reads none.
        """
        if batch.spoken:
            raise ValueError(
                f"{next(iter(batch.spoken.values()))!r} is a text without audio, in which a {type(self).__name__} "
                "hears nothing; train on lines of text with model.ctc_posterior of a CTCPromptedLLM or SALM"
            )
        return self.perception(batch.audio, batch.audio_lengths)

    def ctc_texts(self, batch: ConversationBatch) -> dict[int, str]:
        """Return what `ctc` is taught to read, by the audio's place: a line's ``text``, whatever its answer is."""
        return batch.transcripts()

    @torch.no_grad()
    def ctc_log_probs(self, perceived: PerceptionOutput) -> Tensor:
        """Return log-probabilities of `ctc`'s classes, (N, T, C); kept but in training, where losses add classes."""
        assert self.ctc is not None, "who asks has seen to it"
        if perceived.log_probs is not None:
            return perceived.log_probs
        log_probs = self.ctc.log_probs(self.ctc_states(perceived)[0])
        perceived.log_probs = None if self.training else log_probs
        return log_probs

    def loss(self, batch: ConversationBatch, perceived: PerceptionOutput | None = None) -> dict[str, Tensor]:
        """Return losses of a batch with answers: ``loss``, what is optimised, and its parts by name.

        Args:
            batch: the conversations.
            perceived: what perception made of their audios, where that is known already.
        """
        perceived = perceived or self.perceive(batch)
        losses = self.losses(batch, perceived)
        if "lm_loss" in losses and not self.training:
            perceived.of_answers = losses["lm_loss"].of_answers
        weights = self._loss_weights
        if self.training:  # while several processes train, see `parts_of_all`
            values = parts_of_all(losses, self._loss_names, batch.is_repeated)
        else:
            values = {name: loss.value for name, loss in losses.items()}
        return {"loss": sum(weights[name] * value for name, value in values.items()), **values}

    @property
    def _loss_weights(self) -> dict[str, Any]:
        return {str(name).replace("_weight", "_loss"): weight for name, weight in self.cfg.loss.items()}

    @property
    def _loss_names(self) -> list[str]:
        return sorted(name for name, weight in self._loss_weights.items() if weight > 0)

    def train(self, mode: bool = True) -> "SpeechLM":
        """Set what trains to training mode; a frozen encoder keeps its running statistics and has no dropout.

        Example:
            >>> from nemo_speechllm.data.conversation import Audio
            >>> from nemo_speechllm.data.dataset import ConversationDataset
            >>> from nemo_speechllm.models import load_model
            >>> model = load_model("instruct_las_digits").train()
            >>> audio = Audio.from_file("tests/recordings/digits_theo.flac")
            >>> lesson = model.builder.conversation(audio, {}, "theo", answer="three one four one five")
            >>> losses = model.loss(ConversationDataset(model.builder).collate([lesson]))
            >>> losses["loss"].backward()
            >>> sorted(losses)
            ['encoder_ctc_loss', 'lm_loss', 'loss']
        """
        super().train(mode)
        for prefix in self.pretrained_parts:
            part = self.get_submodule(prefix)
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    # data ------------------------------------------------------------------------------------------------------------

    def setup_training_data(self, train_data_config: DictConfig | dict) -> None:
        """Make the training data's loader from a section like ``train_ds``, and what is done to its batches."""
        config = as_config(train_data_config)
        self._update_dataset_config(dataset_name="train", config=config)
        self._train_dl = self._dataloader_of(config, self.global_rank, self._world_size)
        self._transforms = training_transforms(self.cfg, config)

    def setup_validation_data(self, val_data_config: DictConfig | dict) -> None:
        """Make the validation data's loader from a section like ``validation_ds``.

        Raises:
            ValueError: its texts cannot be scored.
        """
        self._validation_dl = self._evaluation_dataloader("validation", as_config(val_data_config))

    def setup_test_data(self, test_data_config: DictConfig | dict) -> None:
        """Make the test data's loader from a section like ``test_ds``.

        Raises:
            ValueError: its texts cannot be scored.
        """
        self._test_dl = self._evaluation_dataloader("test", as_config(test_data_config))

    def _evaluation_dataloader(self, name: str, config: DictConfig) -> DataLoader:
        self._update_dataset_config(dataset_name=name, config=config)
        dataloader = self._setup_dataloader_from_config(config)
        check_scores(self.cfg.normalizer, config)
        return dataloader

    def _check_monitors(self) -> None:
        names, of_unknown_languages = logged_names(self.cfg, self.ctc is not None, self._of_each_validation_set)
        check_monitors(self.trainer, type(self).__name__, names, of_unknown_languages=of_unknown_languages)

    def _dataloader_of(self, cfg: DictConfig, rank: int, world_size: int) -> DataLoader:
        dataset = ConversationDataset(self.builder, skip_bad_audio=cfg.get("skip_bad_audio", Data.skip_bad_audio))
        return build_dataloader(cfg, dataset, self.tokenizer, rank, world_size)

    @property
    def _world_size(self) -> int:
        return self._trainer.world_size if self._trainer is not None else 1

    def _setup_dataloader_from_config(self, config: DictConfig | dict) -> DataLoader:
        """Return a dataloader of the data once from end to end, also of several sources: Lhotse would go on for ever.

        Several processes share its batches. NeMo's scripts call it, too, for what they predict on.
        """
        given = cast(dict[str, Any], OmegaConf.to_container(as_config(config), resolve=True))
        once = OmegaConf.create(given | {"force_finite": True})
        whole = self._dataloader_of(once, rank=0, world_size=1)
        return whole if self._world_size == 1 else share_batches(whole, self.global_rank, self._world_size)

    # training and validation -----------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Open the cache of encoder states. It serves training alone: what a user transcribes is not kept on disk."""
        super().on_fit_start()
        if not self.training:  # Lightning trains in the mode it finds, and a restored model is found in eval mode
            self.train()
        self.perception.cache_states(self.cfg.perception.state_cache)

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
        log_losses(self, over_all(losses, ["loss", *self._loss_names]), len(batch.conversations))
        return {"loss": losses["loss"]}

    def validation_step(self, batch: ConversationBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch's losses, with its own audio and with another's, and errors of answers to the running counts."""
        count_batch(self, self._validation_tallies.setdefault(dataloader_idx, ErrorTally()), batch)

    def test_step(self, batch: ConversationBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do what `validation_step` does, of a test set."""
        count_batch(self, self._test_tallies.setdefault(dataloader_idx, ErrorTally()), batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``val_loss``, ``val_wer`` and ``val_cer``, over all ranks, for each validation set.

        Where answers are in several languages, in one set or in several, ``val_wer_<lang>`` and ``val_wer_macro`` of
        all sets together are logged as well, and the same of ``val_cer``. Of translations there are ``val_bleu`` and
        ``val_chrf``, in several directions ``val_bleu_<lang>-<target_lang>`` as well; ``val_wer`` counts them like
        transcripts. What ``val_listening`` is, see `ListeningTally`; a model that does not listen is warned of.
        """
        log_tallies(self, self._validation_tallies, "val", self.get_validation_dataloader_prefix)

    def on_test_epoch_end(self) -> None:
        """Log ``test_loss``, ``test_wer``, …: what `on_validation_epoch_end` does, of the test sets."""
        log_tallies(self, self._test_tallies, "test", self.get_test_dataloader_prefix)

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
            TypeError, ValueError: they are no conversations that ask something; see `check_conversations`.
            ValueError: ``batch_size``, ``max_new_tokens`` or ``beam_size`` is less than 1, ``decoder`` is unknown, or
                ``ctc`` of a model that has no CTC; or the model is in training mode.

        Example:
            >>> from nemo_speechllm.data.conversation import Audio
            >>> from nemo_speechllm.models import load_model
            >>> model = load_model("instruct_las_digits")
            >>> audio = Audio.from_file("tests/recordings/digits_theo.flac")
            >>> question = model.builder.conversation(audio, {"instruction": "Say it backwards."}, "theo")
            >>> model.generate([question])[0].text
            'five one four one three'
        """
        options = generation_options(self.cfg.generation, max_new_tokens, beam_size, decoder)
        return self.answering.answer(conversations, batch_size, **options)

    @torch.inference_mode()
    def answer_losses(self, conversations: list[Conversation]) -> list[float]:
        """Return how surprised the decoder is by each conversation's own answer: cross-entropy in nats per token.

        The answer is read token by token as in training, so that small differences show which error rates hide.

        Raises:
            TypeError, ValueError: one asks nothing or has no answer; see `check_conversations`.
            ValueError: the model was trained by CTC alone (``loss.lm_weight`` is 0), so its decoder says nothing; or
                it is in training mode.
        """
        require_trained_decoder(self)
        require_evaluation_mode(self)
        collate, conversations = ConversationDataset(self.builder).collate, check_conversations(conversations, True)
        # one by one: a batch has one mean for all
        return [float(self.loss(collate([item]).to(self.device))["lm_loss"]) for item in conversations]

    # shipped checkpoints ---------------------------------------------------------------------------------------------

    @classmethod
    def list_available_models(cls) -> list[PretrainedModelInfo]:
        """Return the checkpoints of this class (`SpeechLM`: of any) that come with the package; see `from_pretrained`.

        A checkpoint's name begins with that of the module of its class: ``instruct_las_digits``.
        """
        pattern = "*.nemo" if cls is SpeechLM else f"{cls.__module__.rpartition('.')[2]}_*.nemo"
        return [shipped_info(path, cls) for path in shipped_models(pattern).values()]

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
            return cls.restore_from(shipped_models()[model_name], *args, **kwargs)
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
