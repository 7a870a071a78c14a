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
"""Stage 1 of the CTC-prompted LLM as a user runs it: tokenizer, training, and a checkpoint that is NeMo's own; then
stage 2."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from nemo_speechllm.models import CTCPromptedLLM

ROOT = Path(__file__).parents[2]
DURATIONS = (1.2, 1.6, 1.4, 1.8)

PLAIN_NEMO = """
import sys
from nemo.collections.asr.models import EncDecCTCModelBPE
model = EncDecCTCModelBPE.restore_from(sys.argv[1], map_location="cpu")
assert not any(name.startswith("nemo_speechllm") for name in sys.modules)
print("PIECES", model.tokenizer.vocab_size, "TEXTS", len(model.transcribe(sys.argv[2:], verbose=False)))
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)


def train(recipe: str, **overrides) -> subprocess.CompletedProcess:
    settings = [f"{name}={value}" for name, value in overrides.items()]
    return run(ROOT / "examples/train.py", f"--config-name=ctc_prompted_llm/{recipe}", *settings)


@pytest.mark.slow
def test_both_stages_from_manifests_to_transcripts(make_manifest, tiny_llm_folder, tmp_path):
    manifests = [make_manifest(DURATIONS, name) for name in ("train_en.jsonl", "train_fr.jsonl")]
    both = f"[{manifests[0]},{manifests[1]}]"
    audio = sorted(tmp_path.glob("train_fr-*.flac"))
    common = {
        "model.train_ds.manifest_filepath": both,
        "model.train_ds.num_workers": 0,
        "model.train_ds.num_buckets": 2,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "exp_manager.exp_dir": tmp_path / "runs",
    }

    script = ROOT / "examples/data/train_tokenizer.py"
    done = run(script, *manifests, "--out", tmp_path / "tokenizer", "--vocab-size", "40")
    assert done.returncode == 0 and " pieces, " in done.stdout, done.stderr
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer/tokenizer.model")).vocab_size()
    again = run(script, *manifests, "--out", tmp_path / "tokenizer")
    assert again.returncode != 0 and f"--out {tmp_path / 'tokenizer'} exists" in again.stderr

    encoder = {"n_layers": 1, "d_model": 32, "subsampling_conv_channels": 8}
    done = train(
        "stage1_ctc",
        **common | {f"model.encoder.{name}": value for name, value in encoder.items()},
        **{"model.tokenizer.dir": tmp_path / "tokenizer", "model.validation_ds.manifest_filepath": both},
    )
    assert done.returncode == 0, done.stderr
    (stage1,) = (tmp_path / "runs/ctc_stage1").rglob("*.nemo")
    done = run("-c", PLAIN_NEMO, stage1, *audio[:2])
    assert f"PIECES {pieces} TEXTS 2" in done.stdout, done.stderr

    done = train(
        "stage2_llm",
        **common,
        **{
            "model.llm.pretrained": tiny_llm_folder,
            "model.perception.encoder.pretrained": stage1,
            "model.perception.stack": 2,
            "model.text_mask.fraction": 0.25,
            "model.perception.state_cache": tmp_path / "states",
            "model.generation.max_new_tokens": 4,
            "model.validation_ds.manifest_filepath": manifests[0],
        },
    )
    assert done.returncode == 0, done.stderr
    (stage2,) = (tmp_path / "runs/ctc_prompted_smollm2").rglob("*.nemo")
    stage1.unlink()
    model = CTCPromptedLLM.restore_from(stage2)
    for decoder in ("llm", "ctc"):
        assert len(model.transcribe(list(map(str, audio)), decoder=decoder, verbose=False)) == len(audio)


def test_a_target_outside_this_package_and_nemo_is_refused(make_manifest, ctc_tokenizer_folder):
    manifest = make_manifest()
    done = train(
        "stage1_ctc",
        **{
            "model.target": "os.path.join",
            "model.tokenizer.dir": ctc_tokenizer_folder,
            "model.train_ds.manifest_filepath": manifest,
            "model.validation_ds.manifest_filepath": manifest,
            "exp_manager": "null",
        },
    )
    assert done.returncode != 0 and "model.target is 'os.path.join'" in done.stderr


@pytest.mark.parametrize("keep_case", [False, True])
def test_the_tokenizer_folds_case_unless_told_otherwise(make_manifest, tmp_path, keep_case):
    manifest = make_manifest(
        rows=[{"text": "Нажмите ДВА."}, {"text": "Press TWO."}, {"text": "Merci."}, {"text": "Due."}]
    )
    spec = importlib.util.spec_from_file_location("train_tokenizer", ROOT / "examples/data/train_tokenizer.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    texts = [text for text, _ in script.manifest_texts([manifest], ["text"])]
    script.train(texts * 5, tmp_path / "tokenizer", 40, keep_case)
    tokenizer = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer/tokenizer.model"))
    expected = texts if keep_case else [text.lower() for text in texts]
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == expected


def test_a_line_without_text_is_named(make_manifest, tmp_path):
    manifest = make_manifest(rows=[{}, {"text": None}, {}, {}])
    done = run(ROOT / "examples/data/train_tokenizer.py", manifest, "--out", tmp_path / "tokenizer")
    assert done.returncode == 1 and f"{manifest}:2: the line has no 'text'" in done.stderr
    assert not (tmp_path / "tokenizer").exists()
