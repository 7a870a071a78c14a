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

"""A checkpoint or early stopping that watches what the model does not log is refused before any work."""

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from nemo_speechllm.models import SALM


@pytest.fixture
def fit(tiny_salm_config, make_manifest, make_trainer, tmp_path):
    """``fit(callback, rows=…)`` → the trainer, after two steps and a validation on rows in these languages."""

    def run(callback, rows=({}, {})):
        manifest = str(make_manifest((0.5, 0.7), "dev.jsonl", list(rows)))
        tiny_salm_config.model.validation_ds.manifest_filepath = manifest
        watched = {"callbacks": [callback], "enable_checkpointing": True, "default_root_dir": tmp_path}
        trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None, **watched)
        run.trainer = trainer
        trainer.fit(SALM(tiny_salm_config.model, trainer))
        return trainer

    return run


@pytest.mark.parametrize("callback", [ModelCheckpoint, EarlyStopping])
@pytest.mark.parametrize(
    ("name", "nearest"),
    [("val_werr", "val_wer"), ("val_wer_fr", "val_wer"), ("val_bleu", "val_wer"), ("train_lm_los", "train_lm_loss")],
)
def test_what_the_model_does_not_log_is_refused_with_the_nearest_name(name, nearest, callback, fit):
    with pytest.raises(ValueError, match=f"watch '{name}'.*did you mean '{nearest}'.*It logs .*val_loss, val_wer"):
        fit(callback(monitor=name))
    assert fit.trainer.global_step == 0


@pytest.mark.parametrize(
    ("name", "mode", "rows"),
    [
        ("val_wer", "min", [{}, {}]),
        ("train_ctc_loss", "min", [{}, {}]),
        ("val_cer_macro", "min", [{"lang": "en"}, {"lang": "fr"}]),
        ("val_bleu", "max", [{}, {"target_lang": "es", "answer": "hola"}]),
        ("val_listening", "max", [{}, {}]),
        ("val_alignment", "max", [{}, {}]),
        ("val_chrf_en-es", "max", [{"target_lang": lang, "answer": "a"} for lang in ("es", "fr")]),
    ],
)
def test_what_it_logs_is_watched(name, mode, rows, fit):
    trainer = fit(ModelCheckpoint(monitor=name, mode=mode), rows)
    assert trainer.checkpoint_callback.best_model_score is not None


def test_a_figure_is_watched_with_its_better_end(fit):
    rows = [{}, {"target_lang": "es", "answer": "hola"}]
    with pytest.raises(ValueError, match=r"val_bleu with mode=min and would keep the worst.*mode=max"):
        fit(ModelCheckpoint(monitor="val_bleu"), rows)
    with pytest.raises(ValueError, match="val_listening with mode=min and would keep the worst"):
        fit(ModelCheckpoint(monitor="val_listening"))
