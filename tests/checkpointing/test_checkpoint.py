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

import json
import shutil
import tarfile
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf, open_dict
from transformers import LlamaForCausalLM

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM
from nemo_speechllm.modules.fingerprint import is_adapter_key, sampled_fingerprint

SECONDS = (0.6, 1.1)


@pytest.fixture
def samples(make_audio) -> list:
    return [make_audio(seconds, seed=i) for i, seconds in enumerate(SECONDS)]


def answers(model, samples) -> list[str]:
    return model.transcribe(samples, verbose=False)


def file_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights inside a ``.nemo``."""
    with tarfile.open(path) as archive:
        name = next(name for name in archive.getnames() if name.endswith("model_weights.ckpt"))
        return torch.load(archive.extractfile(name), map_location="cpu")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)


def frozen_names(state: dict) -> list[str]:
    return [name for name in state if name.startswith(("llm.", "perception.encoder.")) and not is_adapter_key(name)]


class TestByReference:
    def test_the_file_holds_what_was_trained(self, salm, tmp_path):
        salm.save_to(tmp_path / "m.nemo")
        weights = file_weights(tmp_path / "m.nemo")
        assert not frozen_names(weights)
        assert any(".lora_A" in name for name in weights)
        assert any(name.startswith("perception.adapter.") for name in weights)
        assert sum(value.numel() for value in weights.values()) < 200_000
        assert (tmp_path / "m.nemo").stat().st_size < 8 * 2**20  # most of it is SmolLM2's tokenizer

    def test_restored_it_answers_the_same(self, salm, tmp_path, samples):
        salm.save_to(tmp_path / "m.nemo")
        restored = SALM.restore_from(tmp_path / "m.nemo")
        assert answers(restored, samples) == answers(salm, samples)
        assert_equal(
            torch.nn.Module.state_dict(restored),
            torch.nn.Module.state_dict(salm),
        )

    def test_saving_and_restoring_twice_is_bit_equal(self, salm, tmp_path):
        salm.save_to(tmp_path / "1.nemo")
        once = SALM.restore_from(tmp_path / "1.nemo")
        once.save_to(tmp_path / "2.nemo")
        twice = SALM.restore_from(tmp_path / "2.nemo")
        assert_equal(file_weights(tmp_path / "1.nemo"), file_weights(tmp_path / "2.nemo"))
        assert_equal(twice.state_dict(), salm.state_dict())

    def test_asr_model_restores_it(self, salm, tmp_path, samples):
        salm.save_to(tmp_path / "m.nemo")
        restored = ASRModel.restore_from(str(tmp_path / "m.nemo"))
        assert type(restored) is SALM
        assert answers(restored, samples) == answers(salm, samples)

    def test_relative_path_in_another_folder(self, salm, tmp_path, monkeypatch, samples):
        salm.save_to(tmp_path / "m.nemo")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        restored = SALM.restore_from("../m.nemo", map_location="cpu")
        assert answers(restored, samples) == answers(salm, samples)
        restored.save_to("again.nemo")
        assert (tmp_path / "elsewhere/again.nemo").is_file()

    def test_map_location(self, salm, tmp_path):
        salm.save_to(tmp_path / "m.nemo")
        restored = SALM.restore_from(tmp_path / "m.nemo", map_location=torch.device("cpu"))
        assert {parameter.device.type for parameter in restored.parameters()} == {"cpu"}

    def test_config_alone(self, salm, tmp_path):
        salm.save_to(tmp_path / "m.nemo")
        config = SALM.restore_from(tmp_path / "m.nemo", return_config=True)
        assert config.llm.pretrained == salm.cfg.llm.pretrained
        changed = SALM.restore_from(tmp_path / "m.nemo", return_config=True, override={"llm": {"dtype": "bfloat16"}})
        assert changed.llm.dtype == "bfloat16"

    def test_lightning_checkpoint(self, salm, make_salm, tmp_path, samples):
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.strategy.connect(salm)
        trainer.save_checkpoint(tmp_path / "m.ckpt")
        assert not frozen_names(torch.load(tmp_path / "m.ckpt", weights_only=True)["state_dict"])
        restored = SALM.load_from_checkpoint(tmp_path / "m.ckpt")
        assert answers(restored, samples) == answers(salm, samples)
        fresh = make_salm()
        assert answers(fresh, samples) != answers(salm, samples)
        fresh.maybe_init_from_pretrained_checkpoint(OmegaConf.create({"init_from_ptl_ckpt": str(tmp_path / "m.ckpt")}))
        assert answers(fresh, samples) == answers(salm, samples)


class TestEmbedded:
    def test_save_full_needs_no_folders(self, make_salm, own_parts, tmp_path, samples):
        model = make_salm(**own_parts, save_full=True)
        expected = answers(model, samples)
        model.save_to(tmp_path / "full.nemo")
        assert frozen_names(file_weights(tmp_path / "full.nemo"))
        shutil.rmtree(tmp_path / "llm")
        shutil.rmtree(tmp_path / "whisper")
        restored = SALM.restore_from(tmp_path / "full.nemo")
        assert answers(restored, samples) == expected
        restored.save_to(tmp_path / "again.nemo")
        assert answers(SALM.restore_from(tmp_path / "again.nemo"), samples) == expected

    def test_save_full_may_be_decided_late(self, make_salm, own_parts, tmp_path, samples):
        model = make_salm(**own_parts)
        model.save_to(tmp_path / "m.nemo")
        model = SALM.restore_from(tmp_path / "m.nemo")
        with open_dict(model.cfg):
            model.cfg.save_full = True
        model.save_to(tmp_path / "full.nemo")
        shutil.rmtree(tmp_path / "llm")
        shutil.rmtree(tmp_path / "whisper")
        assert answers(SALM.restore_from(tmp_path / "full.nemo"), samples) == answers(model, samples)

    def test_a_trained_encoder_is_in_the_file(self, make_salm, own_parts, tmp_path, samples):
        model = make_salm(**own_parts, freeze_params=["^llm\\.(?!.*lora_)"])
        with torch.no_grad():
            for parameter in model.perception.encoder.parameters():
                parameter.mul_(1.1)
        model.save_to(tmp_path / "m.nemo")
        held = frozen_names(file_weights(tmp_path / "m.nemo"))
        assert held and all(name.startswith("perception.encoder.") for name in held)
        shutil.rmtree(tmp_path / "whisper")
        restored = SALM.restore_from(tmp_path / "m.nemo")
        assert_equal(restored.perception.encoder.state_dict(), model.perception.encoder.state_dict())
        assert answers(restored, samples) == answers(model, samples)

    def test_weights_changed_before_freezing_are_in_the_file(self, make_salm, tmp_path):
        model = make_salm()
        with torch.no_grad():
            next(model.perception.encoder.parameters()).add_(1.0)
        model.save_to(tmp_path / "m.nemo")
        assert_equal(
            SALM.restore_from(tmp_path / "m.nemo").perception.encoder.state_dict(),
            model.perception.encoder.state_dict(),
        )

    def test_an_llm_without_pretrained_weights_is_in_the_file(self, make_salm, own_parts, tmp_path, samples):
        own_parts["llm"]["pretrained_weights"] = False
        model = make_salm(**own_parts)
        model.save_to(tmp_path / "m.nemo")
        shutil.rmtree(tmp_path / "llm")
        assert answers(SALM.restore_from(tmp_path / "m.nemo"), samples) == answers(model, samples)


class TestMovedParts:
    def test_a_moved_llm_is_an_error_and_override_mends_it(self, make_salm, own_parts, tmp_path, samples):
        model = make_salm(**own_parts)
        model.save_to(tmp_path / "m.nemo")
        (tmp_path / "llm").rename(tmp_path / "moved")
        with pytest.raises(CheckpointError, match=r"m\.nemo refers to .*llm.*override"):
            SALM.restore_from(tmp_path / "m.nemo")
        override = {"llm": {"pretrained": str(tmp_path / "moved")}}
        restored = SALM.restore_from(tmp_path / "m.nemo", override=override)
        assert answers(restored, samples) == answers(model, samples)
        restored.save_to(tmp_path / "mended.nemo")
        SALM.restore_from(tmp_path / "mended.nemo")

    def test_a_moved_encoder_likewise(self, make_salm, own_parts, tmp_path):
        make_salm(**own_parts).save_to(tmp_path / "m.nemo")
        (tmp_path / "whisper").rename(tmp_path / "moved")
        with pytest.raises(CheckpointError, match=r"whisper.*perception"):
            SALM.restore_from(tmp_path / "m.nemo")
        SALM.restore_from(
            tmp_path / "m.nemo", override={"perception": {"encoder": {"pretrained": str(tmp_path / "moved")}}}
        )

    def test_other_llm_weights_are_refused(self, make_salm, own_parts, tmp_path):
        make_salm(**own_parts).save_to(tmp_path / "m.nemo")
        llm = LlamaForCausalLM.from_pretrained(tmp_path / "llm")
        with torch.no_grad():
            llm.model.layers[1].mlp.up_proj.weight.mul_(1.5)
        llm.save_pretrained(tmp_path / "llm")
        with pytest.raises(CheckpointError, match=r"model\.llm\.pretrained=.*llm holds other weights"):
            SALM.restore_from(tmp_path / "m.nemo")

    def test_a_failed_restore_does_not_disturb_the_next_model(self, make_salm, own_parts, tmp_path):
        model = make_salm(**own_parts)
        model.save_to(tmp_path / "m.nemo")
        (tmp_path / "llm").rename(tmp_path / "moved")
        with pytest.raises(CheckpointError):
            SALM.restore_from(tmp_path / "m.nemo")
        assert make_salm().cfg.llm.fingerprint == model.cfg.llm.fingerprint


class TestStrictness:
    def test_missing_and_unexpected_keys_are_named(self, salm):
        state = salm.state_dict()
        state["perception.projection.weigth"] = state.pop("perception.projection.linear.weight")
        with pytest.raises(
            CheckpointError, match=r"missing \['perception.projection.linear.weight'\].*'perception.projection.weigth'"
        ):
            salm.load_state_dict(state)

    def test_part_of_the_llm_is_not_enough(self, salm):
        state = salm.state_dict()
        state["llm.model.norm.weight"] = salm.llm.model.norm.weight.detach().clone()
        with pytest.raises(CheckpointError, match=r"missing \['llm\."):
            salm.load_state_dict(state)

    def test_other_sizes_are_named(self, salm, make_salm):
        with pytest.raises(CheckpointError, match=r"lora_.*\(saved \(.*, here \(.*lora\.r"):
            make_salm(lora={"r": 2}).load_state_dict(salm.state_dict())


class TestInitialising:
    def test_from_a_checkpoint_of_the_same_recipe(self, salm, make_salm, tmp_path):
        salm.save_to(tmp_path / "m.nemo")
        model = make_salm()
        init(model, tmp_path / "m.nemo")
        assert_equal(model.state_dict(), salm.state_dict())

    def test_from_a_warm_up_whose_llm_was_not_run(self, make_salm, tmp_path):
        warm_up = make_salm(loss={"lm_weight": 0.0, "ctc_weight": 1.0})
        with torch.no_grad():
            warm_up.perception.projection.linear.weight.normal_()
        warm_up.save_to(tmp_path / "m.nemo")
        model = make_salm()
        init(model, tmp_path / "m.nemo")
        assert_equal(model.state_dict(), warm_up.state_dict())

    @pytest.mark.parametrize("theirs, ours", [(0.0, 0.5), (0.5, 0.0)])
    def test_what_fits_is_loaded_where_one_has_no_ctc_head(self, make_salm, tmp_path, theirs, ours):
        without_ctc = {"ctc_compression": False, "generation": {"ctc_weight": 0.0}}
        other = make_salm(loss={"ctc_weight": theirs}, **without_ctc)
        with torch.no_grad():
            other.perception.projection.linear.weight.normal_()
        other.save_to(tmp_path / "m.nemo")
        model = make_salm(loss={"ctc_weight": ours}, **without_ctc)
        init(model, tmp_path / "m.nemo")
        assert_equal(model.perception.state_dict(), other.perception.state_dict())


def init(model: SALM, path: Path) -> None:
    model.maybe_init_from_pretrained_checkpoint(OmegaConf.create({"init_from_nemo_model": str(path)}))


class TestSaving:
    def test_the_name_must_end_in_nemo(self, salm, tmp_path):
        with pytest.raises(CheckpointError, match=r"m\.ckpt: .*\.nemo"):
            salm.save_to(tmp_path / "m.ckpt")

    def test_a_failing_save_leaves_the_old_file(self, salm, tmp_path, monkeypatch):
        salm.save_to(tmp_path / "m.nemo")
        before = (tmp_path / "m.nemo").read_bytes()

        def full_disk(*args, **kwargs):
            raise OSError("No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(tarfile.TarFile, "add", full_disk)
            with pytest.raises(OSError, match="No space left"):
                salm.save_to(tmp_path / "m.nemo")
        assert (tmp_path / "m.nemo").read_bytes() == before
        assert [path.name for path in tmp_path.glob("*m*.nemo*")] == ["m.nemo"]
        assert not list(tmp_path.glob(".partial-*"))

    def test_folders_are_made(self, salm, tmp_path):
        salm.save_to(tmp_path / "a/b/m.nemo")
        assert (tmp_path / "a/b/m.nemo").is_file()


class TestNeMoEncoder:
    @pytest.fixture
    def recipe(self, make_fastconformer) -> dict:
        encoder = {"type": "nemo", "pretrained": str(make_fastconformer()), "trim": None}
        return {"perception": {"encoder": encoder, "stack": 1}}

    def test_train_save_restore_transcribe(self, make_salm, recipe, tmp_path, samples):
        model = make_salm(**recipe)
        model.setup_training_data(model.cfg.train_ds)
        model.train()
        assert not model.perception.encoder.training
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
        model.loss(next(iter(model.train_dataloader())))["loss"].backward()
        optimizer.step()
        model.eval()
        model.save_to(tmp_path / "m.nemo")
        assert not frozen_names(file_weights(tmp_path / "m.nemo"))
        restored = SALM.restore_from(tmp_path / "m.nemo")
        assert_equal(restored.state_dict(), model.state_dict())
        assert answers(restored, samples) == answers(model, samples)

    def test_batch_does_not_change_an_answer(self, make_salm, recipe, make_audio):
        model = make_salm(**recipe)
        clips = [make_audio(seconds, seed=i) for i, seconds in enumerate((0.7, 2.0, 1.1, 0.4))]
        assert model.transcribe(clips, batch_size=4, verbose=False) == model.transcribe(
            clips, batch_size=1, verbose=False
        )

    def test_trained_it_needs_no_original(self, make_salm, recipe, tmp_path, samples):
        model = make_salm(**recipe, freeze_params=["^llm\\.(?!.*lora_)"])
        with torch.no_grad():
            next(model.perception.encoder.encoder.parameters()).add_(0.1)
        model.save_to(tmp_path / "m.nemo")
        Path(recipe["perception"]["encoder"]["pretrained"]).unlink()
        assert answers(SALM.restore_from(tmp_path / "m.nemo"), samples) == answers(model, samples)

    def test_other_weights_are_refused(self, make_salm, recipe, make_fastconformer, tmp_path):
        make_salm(**recipe).save_to(tmp_path / "m.nemo")
        other = {"perception": {"encoder": {"pretrained": str(make_fastconformer(seed=1))}}}
        with pytest.raises(CheckpointError, match="holds other weights"):
            SALM.restore_from(tmp_path / "m.nemo", override=other)

    def test_a_missing_file_is_named(self, make_salm, recipe):
        recipe["perception"]["encoder"]["pretrained"] = "/nowhere/fast.nemo"
        with pytest.raises(RuntimeError, match="/nowhere/fast.nemo"):
            make_salm(**recipe)


def test_a_tokenizer_reads_no_file_that_its_config_names(make_salm, tmp_path):
    """Its own files come from the archive; ``vocab`` and ``merges`` of a config would be opened on this machine."""
    (tmp_path / "secret.txt").write_text("the password\nis hunter2\n")
    make_salm().save_to(tmp_path / "good.nemo")
    folder = tmp_path / "folder"
    with tarfile.open(tmp_path / "good.nemo") as archive:
        archive.extractall(folder, filter="data")
    (config,) = folder.glob("*tokenizer_config.json")
    forged = {"tokenizer_class": "BertTokenizer", "vocab": str(tmp_path / "secret.txt"), "unk_token": "the password"}
    config.write_text(json.dumps(forged))
    next(folder.glob("*tokenizer.json")).unlink()
    recipe = OmegaConf.load(folder / "model_config.yaml")
    del recipe.artifacts["tokenizer_json"]
    OmegaConf.save(recipe, folder / "model_config.yaml")
    with tarfile.open(tmp_path / "m.nemo", "w") as archive:
        archive.add(folder, ".")
    with pytest.raises(CheckpointError, match=r"m\.nemo") as raised:
        SALM.restore_from(tmp_path / "m.nemo")
    assert "hunter2" not in str(raised.value)


class TestFingerprint:
    def test_weights_between_the_samples_count(self, make_salm, own_parts, tmp_path):
        make_salm(**own_parts).save_to(tmp_path / "m.nemo")
        llm = LlamaForCausalLM.from_pretrained(tmp_path / "llm")
        with torch.no_grad():
            llm.model.embed_tokens.weight.flatten()[1] += 1.0
        llm.save_pretrained(tmp_path / "llm")
        with pytest.raises(CheckpointError, match=r"model\.llm\.pretrained=.*llm holds other weights"):
            SALM.restore_from(tmp_path / "m.nemo")

    def test_an_older_checkpoint_is_restored_and_saved_with_the_new_one(self, make_salm, tmp_path):
        model = make_salm()
        for section, part in ((model.cfg.llm, model.llm), (model.cfg.perception.encoder, model.perception.encoder)):
            section.fingerprint = sampled_fingerprint(part)
        model._is_saved_by_reference = lambda prefix, section: True  # as it was saved then
        model.save_to(tmp_path / "old.nemo")
        config = SALM.restore_from(tmp_path / "old.nemo", return_config=True)
        assert len(config.llm.fingerprint) == 32
        restored = SALM.restore_from(tmp_path / "old.nemo")
        restored.save_to(tmp_path / "new.nemo")
        assert SALM.restore_from(tmp_path / "new.nemo", return_config=True).llm.fingerprint.startswith("sha256:")

    def test_a_reference_without_one_is_refused(self, make_salm, tmp_path):
        model = make_salm()
        model._is_saved_by_reference = lambda prefix, section: True
        model.cfg.llm.fingerprint = None
        model.save_to(tmp_path / "m.nemo")
        with pytest.raises(CheckpointError, match="m.nemo .*refers to llm.pretrained.*without a fingerprint"):
            SALM.restore_from(tmp_path / "m.nemo")


def test_a_relative_reference_is_found_from_another_folder(make_salm, own_parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_parts["llm"]["pretrained"] = "llm"
    make_salm(**own_parts).save_to(tmp_path / "m.nemo")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert SALM.restore_from(tmp_path / "m.nemo").cfg.llm.pretrained == str(tmp_path / "llm")
