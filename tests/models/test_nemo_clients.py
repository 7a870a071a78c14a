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

"""NeMo's own scripts as clients: what they call on a model, in their order, with NeMo's own helpers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from nemo.collections.asr.data.audio_to_text_dataset import ASRPredictionWriter
from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.models.aed_multitask_models import parse_multitask_prompt
from nemo.collections.asr.models.configs import ASRDatasetConfig
from nemo.collections.asr.parts.submodules.ctc_decoding import CTCDecodingConfig
from nemo.collections.asr.parts.submodules.multitask_decoding import MultiTaskDecoding, MultiTaskDecodingConfig
from nemo.collections.asr.parts.submodules.rnnt_decoding import RNNTDecodingConfig
from nemo.collections.asr.parts.utils.transcribe_utils import (
    prepare_audio_data,
    restore_transcription_order,
    setup_model,
    write_transcription,
)
from nemo.core.neural_types import AudioSignal, LabelsType, LengthsType
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import DeSTA2
from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.models.speech_lm import SpeechLM
from tests.tiny_models import with_blanks

ROOT = Path(__file__).parents[2]
MODELS = ("salm", "ctc_prompted", "instruct_las", "desta2")


@pytest.fixture
def make_desta2(tiny_llm_folder: Path, tiny_whisper_folder: Path) -> Callable[..., DeSTA2]:
    """``make_desta2(**changes)`` → a tiny DeSTA2 in eval mode; its Whisper has no decoder, so lines need a
    ``transcription``."""
    cfg = OmegaConf.load(ROOT / "conf/desta2/whisper_base_smollm2.yaml").model
    tiny = {
        "llm": {"pretrained": str(tiny_llm_folder)},
        "perception": {
            "encoder": {"pretrained": str(tiny_whisper_folder), "taps": [0, 1]},
            "adapter": {"n_queries": 8, "n_heads": 2},
        },
        "generation": {"max_new_tokens": 8},
        "train_ds": None,
        "validation_ds": None,
    }

    def make(**changes) -> DeSTA2:
        torch.manual_seed(0)
        return DeSTA2(OmegaConf.merge(cfg, tiny, changes)).eval()

    return make


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> SpeechLM:
    """A tiny model of each class."""
    return request.getfixturevalue(f"make_{request.param}")(train_ds=None, validation_ds=None)


@pytest.fixture
def manifest(make_manifest: Callable[..., Path]) -> Path:
    """Four utterances, of which the longest is not the first."""
    return make_manifest(name="clients.json", transcription="hello")


def transcribe_speech(**options) -> list[dict]:
    """What ``examples/asr/transcribe_speech.py`` does; returns the lines of the manifest that it writes."""
    defaults = dict(
        model_path=None,
        pretrained_name=None,
        audio_dir=None,
        dataset_manifest=None,
        audio_type="wav",
        append_pred=False,
        presort_manifest=True,
        pred_name_postfix=None,
        return_hypotheses=False,
        channel_selector=None,
        timestamps=None,
        compute_dtype="float32",
        amp=False,
        decoder_type=None,
        extract_nbest=False,
        prompt={},
        augmentor=None,
        gt_lang_attr_name="lang",
        model_change={"conformer": {"self_attention_model": None, "att_context_size": None}},
        ctc_decoding=CTCDecodingConfig(),
        rnnt_decoding=RNNTDecodingConfig(fused_batch_size=-1),
        multitask_decoding=MultiTaskDecodingConfig(),
        att_context_size=None,
    )
    cfg = OmegaConf.create(defaults | options)
    asr_model, name = setup_model(cfg, torch.device("cpu"))
    asr_model.set_trainer(pl.Trainer(devices=1, accelerator="cpu", logger=False, enable_checkpointing=False))
    asr_model = asr_model.eval()
    asr_model.to(getattr(torch, cfg.compute_dtype))
    if cfg.decoder_type and hasattr(asr_model.encoder, "set_default_att_context_size"):
        asr_model.encoder.set_default_att_context_size(None)
    assert hasattr(asr_model, "change_decoding_strategy") and hasattr(asr_model, "decoding")
    assert not hasattr(asr_model, "joint") and not isinstance(asr_model.decoding, MultiTaskDecoding)
    decoding = cfg.rnnt_decoding if cfg.decoder_type == "rnnt" else cfg.ctc_decoding
    if cfg.extract_nbest:
        decoding.beam.return_best_hypothesis = False
        cfg.return_hypotheses = True
    if cfg.decoder_type is not None and hasattr(asr_model, "cur_decoder"):
        asr_model.change_decoding_strategy(decoding, decoder_type=cfg.decoder_type)
    else:
        asr_model.change_decoding_strategy(decoding)
    cfg.decoding = cfg.rnnt_decoding
    files, sorted_manifest = prepare_audio_data(cfg)
    with torch.amp.autocast("cpu", dtype=torch.bfloat16, enabled=cfg.amp), torch.no_grad():
        config = asr_model.get_transcribe_config()
        config.batch_size, config.num_workers, config.return_hypotheses = 2, 0, cfg.return_hypotheses
        config.channel_selector, config.augmentor, config.timestamps = (
            cfg.channel_selector,
            cfg.augmentor,
            cfg.timestamps,
        )
        config.text_field, config.lang_field = "text", cfg.gt_lang_attr_name
        if hasattr(config, "prompt"):
            config.prompt = parse_multitask_prompt(OmegaConf.to_container(cfg.prompt))
        answers = asr_model.transcribe(
            audio=sorted_manifest or files, override_config=config, timestamps=cfg.timestamps
        )
    if cfg.dataset_manifest is not None:
        answers = restore_transcription_order(cfg.dataset_manifest, answers)
    write_transcription(answers, cfg, name, filepaths=files, timestamps=cfg.timestamps)
    return [json.loads(line) for line in Path(cfg.output_filename).read_text().splitlines()]


@pytest.fixture
def saved(model: SpeechLM, tmp_path: Path) -> Path:
    path = tmp_path / "model.nemo"
    model.save_to(path)
    return path


class TestTranscribeSpeech:
    @pytest.mark.parametrize(
        "options", [{}, {"return_hypotheses": True, "compute_dtype": "bfloat16"}], ids=["texts", "hypotheses"]
    )
    def test_a_manifest(self, model, saved, manifest, tmp_path, options):
        lines = transcribe_speech(
            model_path=str(saved),
            dataset_manifest=str(manifest),
            output_filename=str(tmp_path / "out.json"),
            **options,
        )
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        assert [{k: v for k, v in line.items() if k != "pred_text"} for line in lines] == rows
        if not options:
            assert [line["pred_text"] for line in lines] == model.transcribe(str(manifest), verbose=False)

    def test_times_of_words(self, make_ctc_prompted, make_audio, manifest, tmp_path):
        with_blanks(make_ctc_prompted(), make_audio(4.0)).save_to(tmp_path / "model.nemo")
        lines = transcribe_speech(
            model_path=str(tmp_path / "model.nemo"),
            dataset_manifest=str(manifest),
            output_filename=str(tmp_path / "out.json"),
            decoder_type="ctc",
            timestamps=True,
        )
        of_words = [[word["word"] for word in line["word"]] for line in lines]
        of_texts = [line["pred_text"].split() for line in lines]
        assert any(of_words) and all(w in ([], text) for w, text in zip(of_words, of_texts, strict=True))
        for entry in [*lines[0]["word"], *lines[0]["segment"]]:
            assert isinstance(entry["start_offset"], int) and 0 <= entry["start"] <= entry["end"] <= 1.0

    def test_a_folder_of_files(self, make_salm, manifest, tmp_path):
        make_salm().save_to(tmp_path / "model.nemo")
        lines = transcribe_speech(
            model_path=str(tmp_path / "model.nemo"),
            audio_dir=str(manifest.parent),
            audio_type="flac",
            output_filename=str(tmp_path / "out.json"),
        )
        assert {Path(line["audio_filepath"]).name for line in lines} == {
            p.name for p in manifest.parent.glob("*.flac")
        }

    def test_a_shipped_model_by_name(self, manifest, tmp_path):
        lines = transcribe_speech(
            pretrained_name="instruct_las_digits",
            dataset_manifest=str(manifest),
            output_filename=str(tmp_path / "out.json"),
        )
        assert len(lines) == 4 and all(isinstance(line["pred_text"], str) for line in lines)

    def test_its_decoder_type_is_ours(self, make_ctc_prompted, manifest, tmp_path):
        model = make_ctc_prompted()
        model.save_to(tmp_path / "model.nemo")
        options = {"dataset_manifest": str(manifest), "output_filename": str(tmp_path / "out.json")}
        lines = transcribe_speech(model_path=str(tmp_path / "model.nemo"), decoder_type="ctc", **options)
        assert [line["pred_text"] for line in lines] == model.transcribe(str(manifest), decoder="ctc", verbose=False)
        assert model.cur_decoder == "llm"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"timestamps": True}, "timestamps"),
            ({"extract_nbest": True}, "beam.return_best_hypothesis=False"),
            ({"augmentor": {"white_noise": {"prob": 1.0}}}, "augmentor="),
            ({"decoder_type": "rnnt"}, "decoder_type=rnnt"),
            ({"decoder_type": "ctc"}, "decoder_type=ctc"),
            ({"ctc_decoding": CTCDecodingConfig(strategy="beam")}, "strategy=beam"),
            (
                {"rnnt_decoding": RNNTDecodingConfig(fused_batch_size=-1, strategy="maes")},
                "rnnt_decoding.strategy=maes",
            ),
            ({"multitask_decoding": MultiTaskDecodingConfig(strategy="greedy")}, "multitask_decoding.strategy=greedy"),
            ({"att_context_size": [70, 13]}, r"att_context_size=\[70, 13\]"),
            ({"prompt": {"pnc": "yes"}}, "pnc"),
            ({"prompt": {"role": "system", "slots": {"task": "asr"}}}, "system"),
            ({"prompt": {"turns": [{"role": "user", "slots": {}}] * 2}}, "one turn"),
            ({"model_change": {"conformer": {"self_attention_model": "rel_pos_local_attn"}}}, "self_attention_model"),
        ],
    )
    def test_what_a_speech_lm_has_not_is_refused_by_name(self, make_salm, manifest, tmp_path, options, message):
        make_salm(
            loss={"ctc_weight": 0}, ctc_compression=False, generation={"ctc_weight": 0, "max_keywords": None}
        ).save_to(tmp_path / "model.nemo")
        options = {"dataset_manifest": str(manifest), "output_filename": str(tmp_path / "out.json")} | options
        with pytest.raises((ValueError, NotImplementedError), match=message):
            transcribe_speech(model_path=str(tmp_path / "model.nemo"), **options)


class TestPretrained:
    def test_asr_model_lists_and_restores_what_is_shipped(self):
        listed = {info.pretrained_model_name: info.class_ for info in ASRModel.list_available_models()}
        assert {name: listed[name].__name__ for name in shipped_models()} == {
            "ctc_prompted_smollm2": "CTCPromptedLLM",
            "desta2_whisper_base_qwen": "DeSTA2",
            "instruct_las_digits": "InstructLAS",
            "salm_posterior_smollm2": "SALM",
            "salm_whisper_smollm2": "SALM",
        }
        config = ASRModel.from_pretrained("salm_whisper_smollm2", return_config=True)
        assert config.target == "nemo_speechllm.models.salm.SALM"

    @pytest.mark.slow
    def test_the_package_alone_is_enough(self):
        code = (
            "import nemo_speechllm\nfrom nemo.collections.asr.models import ASRModel\n"
            "print(type(ASRModel.from_pretrained('instruct_las_digits', map_location='cpu')).__name__)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1:] == ["InstructLAS"], done.stderr[-2000:]


def test_transcribe_speech_parallel(model, manifest, make_trainer, tmp_path):
    section = OmegaConf.structured(ASRDatasetConfig(manifest_filepath=str(manifest), min_duration=0, max_duration=40))
    section.sample_rate, section.batch_size, section.return_sample_id, section.num_workers = 16000, 3, True, 0
    trainer = make_trainer()
    assert model.cfg.train_ds == {}, "the script copies what it finds there, and stumbles over None"
    model.set_trainer(trainer)
    model.change_decoding_strategy(OmegaConf.structured(CTCDecodingConfig()))
    loader = model._setup_dataloader_from_config(section)
    writer = ASRPredictionWriter(dataset=loader.dataset, output_file=str(tmp_path / "predictions.json"))
    trainer.callbacks.append(writer)
    trainer.predict(model, dataloaders=loader, return_predictions=False)
    assert writer.close_output_file() == 4
    written = [json.loads(line) for line in (tmp_path / "predictions.json").read_text().splitlines()]
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    texts = model.transcribe(str(manifest), verbose=False)
    expected = {
        row["text"]: (str(manifest.parent / row["audio_filepath"]), text)
        for row, text in zip(rows, texts, strict=False)
    }
    assert {line["text"]: (line["audio_filepath"], line["pred_text"]) for line in written} == expected


class TestOOMptimizer:
    @staticmethod
    def batch(schema: dict, size: int, samples: int, tokens: int):
        """As OOMptimizer's generator makes it."""
        length, kwargs = {"input": samples, "output": tokens}, {}
        for item in schema["inputs"]:
            n, kind = length[item["seq_length"]], item["type"].elements_type
            if isinstance(kind, AudioSignal):
                kwargs[item["name"]] = torch.randn(size, n)
            elif isinstance(kind, LengthsType):
                kwargs[item["name"]] = torch.full((size,), n)
            else:
                assert isinstance(kind, LabelsType)
                kwargs[item["name"]] = torch.randint(0, item["vocab_size"], (size, n))
        return schema["cls"](**kwargs)

    def test_a_step(self, model):
        trainer = pl.Trainer(barebones=True, accelerator="cpu")
        model.set_trainer(trainer)
        model.train()
        optimizer, _ = model.setup_optimization({"name": "adamw", "lr": 1e-7, "weight_decay": 0.0})
        for size, seconds, tokens in ((2, 2, 24), (3, 1, 6)):
            batch = self.batch(model.oomptimizer_schema, size, seconds * 16000, tokens)
            assert batch.audio.shape == (size, seconds * 16000)
            spoken = model.tokenizer(batch.conversations[0].answer, add_special_tokens=False).input_ids
            assert tokens <= len(spoken) <= tokens + 2
            optimizer.zero_grad()
            out = model.training_step(batch, 0)
            out["loss"].sum().backward()
            optimizer.step()
            assert torch.isfinite(out["loss"]) and out["loss"] > 0


class TestFinetune:
    @pytest.fixture
    def cfg(self, manifest) -> DictConfig:
        """``conf/asr_finetune/speech_to_text_finetune.yaml`` of NeMo, as far as the script reads it."""
        data = {"manifest_filepath": str(manifest), "sample_rate": 16000, "batch_size": 2, "num_workers": 0}
        train = data | {"shuffle": True, "max_duration": 20, "min_duration": 0.1, "is_tarred": False}
        train |= {"tarred_audio_filepaths": None, "shuffle_n": 2048, "bucketing_strategy": "fully_randomized"}
        spec_augment = {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 3,
        }
        sched = {"name": "CosineAnnealing", "warmup_steps": 1, "min_lr": 5e-6}
        optim = {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.98], "weight_decay": 1e-3, "sched": sched}
        sections = {"train_ds": train, "validation_ds": data | {"use_start_end_token": False}}
        return OmegaConf.create({**sections, "spec_augment": spec_augment, "optim": optim})

    def test_two_steps(self, saved, cfg, make_trainer, tmp_path):
        trainer = make_trainer(max_epochs=1, max_steps=2, val_check_interval=1.0)
        model = ASRModel.restore_from(restore_path=str(saved), map_location="cpu")
        model.set_trainer(trainer)
        model.setup_training_data(cfg.train_ds)
        model.setup_multiple_validation_data(cfg.validation_ds)
        model.setup_optimization(cfg.optim)
        model.spec_augment = ASRModel.from_config_dict(cfg.spec_augment)
        before = {name: weight.clone() for name, weight in model.named_parameters() if weight.requires_grad}
        trainer.fit(model)
        assert trainer.global_step == 2 and "val_wer" in trainer.callback_metrics
        assert any(
            not torch.equal(weight, before[name]) for name, weight in model.named_parameters() if name in before
        )
        model.save_to(tmp_path / "tuned.nemo")
        restored = ASRModel.restore_from(str(tmp_path / "tuned.nemo"), map_location="cpu")
        assert restored.cfg.perception.encoder.spec_augment.freq_masks == 2

    def test_a_schedule_without_steps_says_what_to_set(self, salm, cfg, make_trainer):
        salm.set_trainer(make_trainer(max_epochs=1, max_steps=-1))
        salm.setup_training_data(cfg.train_ds)
        with pytest.raises(ValueError, match="CosineAnnealing.*trainer.max_steps"):
            salm.setup_optimization(cfg.optim)

    def test_spec_augment_acts_in_training_alone(self, salm, make_audio):
        samples = torch.from_numpy(make_audio(2.0))[None]
        length = torch.tensor([samples.shape[1]])
        plain, _ = salm.perception.encoder(samples, length)
        salm.spec_augment = ASRModel.from_config_dict(
            {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation", "freq_masks": 4, "time_masks": 4}
        )
        assert torch.equal(salm.perception.encoder(samples, length)[0], plain)
        salm.perception.encoder.train()
        assert not torch.equal(salm.perception.encoder(samples, length)[0], plain)
        salm.spec_augment = None
        assert torch.equal(salm.perception.encoder.eval()(samples, length)[0], plain)

    def test_spec_augment_and_cached_states_exclude_each_other(self, make_salm, tmp_path):
        model = make_salm(perception={"state_cache": str(tmp_path)})
        with pytest.raises(ValueError, match="spec_augment.*state_cache"):
            model.spec_augment = torch.nn.Identity()


def test_a_missing_llm_is_named_whatever_class_restores(make_salm, tiny_llm_folder, tmp_path):
    llm = tmp_path / "the_llm"
    shutil.copytree(tiny_llm_folder, llm)
    make_salm(llm={"pretrained": str(llm)}).save_to(tmp_path / "model.nemo")
    shutil.rmtree(llm)
    with pytest.raises(CheckpointError, match=r"model\.nemo.*the_llm.*override"):
        ASRModel.restore_from(str(tmp_path / "model.nemo"), map_location="cpu")


class TestTest:
    def test_the_figures_are_those_of_validation(self, model, manifest, make_trainer):
        section = OmegaConf.create({"manifest_filepath": str(manifest), "batch_size": 3, "num_workers": 0})
        trainer = make_trainer()
        model.set_trainer(trainer)
        model.setup_multiple_validation_data(section)
        model.setup_multiple_test_data(section)
        (validated,) = trainer.validate(model, verbose=False)
        (tested,) = trainer.test(model, verbose=False)
        assert {"val_loss", "val_wer", "val_cer"} <= set(validated)
        assert tested == {name.replace("val_", "test_"): pytest.approx(value) for name, value in validated.items()}

    def test_several_sets_have_their_names(self, salm, make_manifest, make_trainer):
        paths = [str(make_manifest(name=f"{name}.json")) for name in ("first", "second")]
        trainer = make_trainer()
        salm.set_trainer(trainer)
        salm.setup_multiple_test_data(
            OmegaConf.create({"manifest_filepath": paths, "batch_size": 2, "num_workers": 0})
        )
        figures = {name: value for result in trainer.test(salm, verbose=False) for name, value in result.items()}
        assert {"test_wer", "first_test_wer", "second_test_wer"} <= set(figures)
