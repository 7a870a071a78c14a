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

import pytest
import torch

from tests.tiny_models import salm_of


def test_validation_logs_loss_and_error_rates(recipe, make_trainer):
    trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
    trainer.fit(salm_of(recipe, trainer))
    metrics = trainer.logged_metrics
    assert {"val_loss", "val_wer", "val_cer", "train_loss", "train_lm_loss", "train_ctc_loss"} <= set(metrics)
    assert metrics["val_wer"] > 0
    assert torch.isfinite(metrics["val_loss"])


@pytest.mark.parametrize("by_language", [False, True], ids=["one set", "a set per language"])
def test_validation_of_several_languages_logs_each_and_their_mean(by_language, recipe, make_manifest, make_trainer):
    if by_language:
        manifests = [str(make_manifest((0.5, 0.7), f"{lang}.jsonl", lang=lang)) for lang in ("en", "fr")]
    else:
        rows = [{"lang": "en"}, {"lang": "fr"}, {"lang": "en"}]
        manifests = str(make_manifest((0.5, 0.7, 0.6), "mixed.jsonl", rows))
    recipe.model.validation_ds.manifest_filepath = manifests
    trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
    trainer.fit(salm_of(recipe, trainer))
    metrics = trainer.logged_metrics
    for rate in ("val_wer", "val_cer"):
        mean = (metrics[f"{rate}_en"] + metrics[f"{rate}_fr"]) / 2
        assert metrics[f"{rate}_macro"] == pytest.approx(float(mean))


def test_validation_scores_translations_by_direction(recipe, make_manifest, make_trainer):
    rows = [{}, {"target_lang": "es", "answer": "hola"}, {"target_lang": "fr", "answer": "bonjour"}]
    recipe.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7, 0.6), "mixed.jsonl", rows))
    trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
    trainer.fit(salm_of(recipe, trainer))
    metrics = trainer.logged_metrics
    for name in ("val_bleu", "val_chrf"):
        mean = (metrics[f"{name}_en-es"] + metrics[f"{name}_en-fr"]) / 2
        assert metrics[name] == pytest.approx(float(mean))


def test_words_are_counted_by_the_rules_of_the_language_they_are_written_in(recipe, make_manifest, make_trainer):
    rows = [{"text": "um uh"}, {"text": "um acht", "lang": "de"}, {"target_lang": "de", "answer": "um die"}]
    recipe.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7, 0.6), "mixed.jsonl", rows))
    trainer = make_trainer()
    model = salm_of(recipe, trainer)
    model.setup_validation_data(model.cfg.validation_ds)
    for batch in model._validation_dl:
        model.validation_step(batch, 0)
    words = model._validation_tallies[0].words
    assert {language: counts.reference for language, counts in words.items()} == {"en": 0, "de": 4}


def test_a_score_that_could_not_be_computed_is_refused_before_the_first_step(
    recipe, make_manifest, make_trainer, monkeypatch
):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    rows = [{}, {"target_lang": "ja-JP", "answer": "こんにちは"}]
    recipe.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7), "ja.jsonl", rows))
    trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
    with pytest.raises(ValueError, match=r"translations into ja-JP .*pip install 'sacrebleu\[ja\]'"):
        trainer.fit(salm_of(recipe, trainer))
    assert trainer.global_step == 0
    recipe.model.normalizer = "german"
    with pytest.raises(ValueError, match="model.normalizer is 'german'; it must be one of auto, english"):
        trainer.fit(salm_of(recipe, trainer))


def test_several_validation_sets_have_names_of_their_own(recipe, make_manifest, make_trainer):
    recipe.model.validation_ds.manifest_filepath = [
        str(make_manifest((0.5, 0.7), "first.jsonl")),
        str(make_manifest((0.6,), "second.jsonl")),
    ]
    trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
    trainer.fit(salm_of(recipe, trainer))
    names = [name for name in trainer.logged_metrics if name.endswith("val_wer")]
    assert len(names) == 3 and "val_wer" in names
    assert any("first" in name for name in names) and any("second" in name for name in names)
