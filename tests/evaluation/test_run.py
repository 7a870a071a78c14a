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

"""A model over a manifest: what is asked, what is counted, and a run that was killed taken up."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.evaluation.report import evaluation_report, format_evaluation
from nemo_speechllm.evaluation.run import EvaluateArguments, evaluate, prediction
from nemo_speechllm.models import SALM, load_model
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.modules.fingerprint import state_digest
from nemo_speechllm.modules.llm import has_merged_lora


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def call(**arguments) -> dict:
    """Evaluate as the script does: write, and print the tables."""
    report = evaluate(OmegaConf.merge(OmegaConf.structured(EvaluateArguments), arguments))
    print(format_evaluation(report))
    return report


def test_reports_and_resumes(tiny_nemo, make_manifest, tmp_path, capsys):
    manifest = make_manifest(rows=[{"lang": "en"}, {"lang": "fr"}, {"lang": "en"}, {"lang": "en"}])
    output = tmp_path / "evaluation"
    arguments = dict(model=tiny_nemo, manifest=str(manifest), output_dir=str(output), batch_size=2)
    call(**arguments)
    predictions = lines(output / "predictions.jsonl")
    metrics = json.loads((output / "metrics.json").read_text())
    assert [p["index"] for p in predictions] == [0, 1, 2, 3]
    assert metrics["utterances"] == 4 and metrics["audio_seconds"] == pytest.approx(3.8)
    assert metrics["wer"] == sum(p["errors"] for p in predictions) / sum(p["words"] for p in predictions)
    assert {k: v["utterances"] for k, v in metrics["languages"].items()} == {"en": 3, "fr": 1}
    assert "WER %" in capsys.readouterr().out

    # killed while the third line was being written
    whole = (output / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (output / "predictions.jsonl").write_bytes(whole[0] + whole[1] + whole[2][:20])
    (output / "metrics.json").unlink()
    call(**arguments | {"batch_size": 1})
    again = lines(output / "predictions.jsonl")
    assert again[:2] == predictions[:2]
    assert [p["pred_text"] for p in again] == [p["pred_text"] for p in predictions]
    assert json.loads((output / "metrics.json").read_text())["words"] == metrics["words"]

    with pytest.raises(ValueError, match="another evaluation.*generation was.*give another output_dir"):
        call(**arguments | {"max_new_tokens": 3})
    manifest.write_text(manifest.read_text().replace("thank you", "thank them"))
    with pytest.raises(ValueError, match="another evaluation.*manifest was"):
        call(**arguments)
    (output / "run.json").unlink()
    with pytest.raises(ValueError, match="exists without run.json"):
        call(**arguments)


def test_lora_is_merged_when_the_weights_are_written_down(tiny_nemo, make_manifest, tmp_path, monkeypatch):
    merged, generate = [], SALM.generate

    def spied(model, *arguments):
        merged.append(has_merged_lora(model, model.cfg.lora))
        return generate(model, *arguments)

    monkeypatch.setattr(SALM, "generate", spied)
    arguments = {"model": tiny_nemo, "manifest": str(make_manifest((0.5,))), "output_dir": str(tmp_path / "merged")}
    call(**arguments)
    apart = load_model(tiny_nemo)
    assert merged == [True] and not has_merged_lora(apart, apart.cfg.lora)
    assert json.loads((tmp_path / "merged/run.json").read_text())["model"] == state_digest(apart)


def test_reports_keywords_and_answers_to_silence(tiny_nemo, make_manifest, tmp_path, capsys):
    rows = [{"keywords": ["support", "Ada"]}, {}, {"keywords": "line"}, {"text": ""}]
    output = tmp_path / "evaluation"
    arguments = dict(model=tiny_nemo, manifest=str(make_manifest(rows=rows)))
    call(**arguments, output_dir=str(output))
    metrics = json.loads((output / "metrics.json").read_text())
    assert [p.get("keywords") for p in lines(output / "predictions.jsonl")] == [
        ["support", "Ada"],
        None,
        ["line"],
        None,
    ]
    # the tiny model has learnt nothing: of the two keywords that are said it recognises none
    assert (metrics["keywords"]["utterances"], metrics["keywords"]["misses"], metrics["keywords"]["recall"]) == (
        2,
        1,
        0,
    )
    assert metrics["hallucination"]["silence_answered"]["of"] == 1
    assert "keywords: " in capsys.readouterr().out

    call(**arguments, output_dir=str(tmp_path / "all"), keywords=["hold"])
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())
    assert metrics["keywords"]["utterances"] == 4
    with pytest.raises(ValueError, match="another evaluation.*keywords was"):
        call(**arguments, output_dir=str(tmp_path / "all"))


def test_scores_translations_apart(tiny_nemo, make_manifest, tmp_path, capsys):
    spanish = {"target_lang": "es", "answer": "Gracias."}
    manifest, output = (
        make_manifest(rows=[{}, spanish, {"target_lang": "en"}, spanish | {"lang": "fr"}]),
        tmp_path / "out",
    )
    call(model=tiny_nemo, manifest=str(manifest), output_dir=str(output))
    predictions = lines(output / "predictions.jsonl")
    assert [p.get("target_lang") for p in predictions] == [None, "es", None, "es"]
    assert [("errors" in p, p["text"]) for p in predictions[1:3]] == [(False, "Gracias."), (True, "thank you")]
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["utterances"] == 2 and metrics["hallucination"]["loops"]["of"] == 4
    assert {name: figures["utterances"] for name, figures in metrics["translation"].items()} == {
        "en>es": 1,
        "fr>es": 1,
    }
    printed = capsys.readouterr().out
    assert "WER %" in printed and metrics["translation"]["fr>es"]["signatures"]["bleu"] in printed

    alone = make_manifest((0.5,), "alone.jsonl", [spanish])
    call(model=tiny_nemo, manifest=str(alone), output_dir=str(tmp_path / "alone"))
    assert json.loads((tmp_path / "alone" / "metrics.json").read_text())["wer"] is None
    printed = capsys.readouterr().out
    assert "WER %" not in printed and "en>es" in printed


CASES = {  # reference, hypothesis, language → words, errors
    "hi": [("मेरा नाम राम है", "मरा नाम राम है"), ("आज मौसम बहुत अच्छा है", "आज मौसम बहत अच्छा है"), 9, 2],
    "de": [
        ("Wir treffen uns um acht Uhr.", "Wir treffen uns acht Uhr."),
        ("Das ist schön gut.", "Das ist schon gut."),
        10,
        2,
    ],
}


@pytest.mark.parametrize("lang", CASES)
@pytest.mark.parametrize("normalizer", ["auto", "basic"])
def test_the_language_of_a_line_decides_how_its_words_are_counted(lang, normalizer):
    *pairs, words, errors = CASES[lang]
    predictions = [
        prediction(
            index,
            Conversation("a", [], {"audio_filepath": "a.wav", "duration": 2.0, "lang": lang, "text": text}),
            Answer(heard, [], False),
            0.1,
            normalizer,
        )
        for index, (text, heard) in enumerate(pairs)
    ]
    assert (sum(p["words"] for p in predictions), sum(p["errors"] for p in predictions)) == (words, errors)
    report = evaluation_report(predictions, normalizer)
    assert report.words.reference == words and report.wer == pytest.approx(errors / words)


@pytest.mark.parametrize(("lang", "extra"), [("ja", "ja"), ("jpn", "ja"), ("ko-KR", "ko")])
def test_names_a_missing_tokenizer_before_any_work(lang, extra, make_manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(f"sacrebleu.tokenizers.tokenizer_{extra}_mecab.MeCab", None)
    manifest = make_manifest((0.5, 0.5), rows=[{}, {"target_lang": lang, "answer": "x"}])
    with pytest.raises(ValueError, match=rf"translations into {lang} .*pip install 'sacrebleu\[{extra}\]'"):
        call(model="unread.nemo", manifest=str(manifest), output_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="unknown text normalizer 'german'"):
        call(model="unread.nemo", manifest=str(manifest), output_dir="out", normalizer="german")


def test_tells_how_words_were_counted(tiny_nemo, make_manifest, tmp_path, capsys):
    manifest = make_manifest((0.5, 0.5, 0.5), rows=[{}, {"lang": "zh-CN", "text": "你好，世界"}, {"lang": None}])
    output = tmp_path / "out"
    call(model=tiny_nemo, manifest=str(manifest), output_dir=str(output), max_new_tokens=2)
    printed = capsys.readouterr().out
    assert "text normalizer: basic for zh-CN; english for lines without lang, en\n" in printed
    assert "words of zh-CN: each character" in printed
    assert [p["normalizer"] for p in lines(output / "predictions.jsonl")] == ["english", "basic", "english"]


def test_changes_the_generation_section(tiny_nemo, make_manifest, tmp_path):
    arguments = dict(model=tiny_nemo, manifest=str(make_manifest((0.5,))), output_dir=str(tmp_path / "out"))
    call(**arguments, generation={"max_new_tokens": 1, "ctc_weight": 0})
    (prediction,) = lines(tmp_path / "out" / "predictions.jsonl")
    assert prediction["truncated"]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["generation"]["max_new_tokens"], record["generation"]["ctc_weight"]) == (1, 0)
    with pytest.raises(ValueError, match="model.generation has no setting.*beams"):
        call(**arguments, generation={"beams": 4})
    with pytest.raises(ValueError, match="CTC answers here; add decoder=llm"):
        call(**arguments, generation={"ctc_weight": 0.5}, decoder="ctc")


def test_reports_the_loss_of_the_references(tiny_nemo, make_manifest, tmp_path):
    arguments = dict(model=tiny_nemo, manifest=str(make_manifest((0.5, 0.7))), max_new_tokens=2)
    call(**arguments, output_dir=str(tmp_path / "with"), lm_loss=True)
    losses = [prediction["lm_loss"] for prediction in lines(tmp_path / "with" / "predictions.jsonl")]
    metrics = json.loads((tmp_path / "with" / "metrics.json").read_text())
    assert metrics["lm_loss"] == pytest.approx(sum(losses) / 2) and 0 < metrics["lm_loss"] < 20
    with pytest.raises(ValueError, match="another evaluation.*lm_loss was True"):
        call(**arguments, output_dir=str(tmp_path / "with"))
    with pytest.raises(ValueError, match="whisper-tiny.en has no lm_loss"):
        arguments["model"] = "whisper:whisper-tiny.en"
        call(**arguments, output_dir=str(tmp_path / "whisper"), lm_loss=True)


def test_lists_the_defects_of_a_manifest(make_manifest, tmp_path):
    manifest = make_manifest((0.5, 0.5), rows=[{"text": None}, {"audio_filepath": "gone.flac"}])
    with pytest.raises(ValueError, match=r"(?s)2 defects.*jsonl:1: text: .*jsonl:2: audio_filepath: .*--write-clean"):
        call(model="unread.nemo", manifest=str(manifest), output_dir=str(tmp_path / "out"))


def test_reads_the_selected_channel(tiny_nemo, make_manifest, make_audio, tmp_path):
    manifest = make_manifest((0.7,), rows=[{"audio_filepath": "two.wav"}])
    samples = make_audio(0.7), make_audio(0.7, seed=1)
    soundfile.write(tmp_path / "two.wav", np.stack(samples, axis=1), 16000, subtype="FLOAT")
    arguments = dict(model=tiny_nemo, manifest=str(manifest), output_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="has 2 channels"):
        call(**arguments)
    call(**arguments, channel_selector=1)
    (prediction,) = lines(tmp_path / "out" / "predictions.jsonl")
    assert [prediction["pred_text"]] == load_model(tiny_nemo).transcribe([samples[1]])
    with pytest.raises(ValueError, match="another evaluation.*channel_selector was"):
        call(**arguments, channel_selector=0)
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        call(**arguments | {"output_dir": str(tmp_path / "new")}, channel_selector=1, max_new_tokens=0)
    assert not (tmp_path / "new").exists()


def test_whisper_with_its_own_decoder(make_manifest, tmp_path):
    manifest, output = make_manifest((0.6, 1.0)), tmp_path / "whisper"
    call(model="whisper:whisper-tiny.en", manifest=str(manifest), output_dir=str(output), max_new_tokens=5)
    assert json.loads((output / "metrics.json").read_text())["utterances"] == 2
