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

"""The builder: each row once whatever happens, shards, what is written at the end."""

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tqdm import tqdm

from nemo_speechllm.desta.build import DescriptionBuilder, shard_of
from nemo_speechllm.desta.seed import ATTRIBUTES
from nemo_speechllm.engines.endpoint import EndpointEngine
from nemo_speechllm.engines.engine import Completion
from nemo_speechllm.manifests.manifest import read_manifest

QUESTION = "What can you hear from the audio?"


def engine(requests):
    """In the place of an LLM where it does not matter."""
    for request in requests:
        yield request.id, Completion(f"I hear {len(request.message)} letters.", False)


def build(builder: DescriptionBuilder, make_engine=lambda: engine, questions=(QUESTION,)) -> dict | None:
    with builder.lock():
        builder.extract_metadata(["duration", "snr"])
        builder.generate(make_engine, questions)
    return builder.finish()


def journaled(folder: Path, stage: str) -> list[dict]:
    files = sorted((folder / stage).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def lock_elsewhere(folder: Path) -> str:
    """What another process is told that wants to build the first shard."""
    code = (
        "import sys; from nemo_speechllm.files import FolderLock; "
        "FolderLock(sys.argv[1], 'build of shard 0', '-shard-00000')"
    )
    return subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True).stderr


def test_writes_a_training_manifest_in_the_order_of_the_rows(make_manifest, tmp_path):
    manifest = make_manifest(gender="female")
    assert build(DescriptionBuilder(manifest, tmp_path / "out")) == {
        "rows": 4, "kept": 4, "empty": 0, "truncated": 0, "refusal": 0, "echo": 0,
    }  # fmt: skip
    rows, sources = read_manifest(tmp_path / "out" / "desta.jsonl", locate_audio=True), read_manifest(manifest)
    assert [row["id"] for row in rows] == [row["audio_filepath"] for row in sources]
    assert [row["text"] for row in rows] == [row["transcription"] for row in rows] == [row["text"] for row in sources]
    seed = '[00:00:00 - 00:00:01]: "press one for support" (Gender:Female, Language: English, '
    described = journaled(tmp_path / "out", "descriptions")[0]
    assert described["seed"].startswith(seed)
    assert rows[0]["instruction"] == QUESTION
    assert rows[0]["answer"] == f"I hear {len(described['seed']) + 1 + len(QUESTION)} letters."
    assert rows[0]["attributes"] == list(ATTRIBUTES)
    (segment,) = rows[0]["metadata"]
    assert segment["metadata"]["gender"] == {"value": "female", "unit": None, "source": "label"}


def test_segments_are_measured_each_by_itself(make_manifest, tmp_path):
    segments = [{"start": 0, "end": 0.5, "text": "Hi.", "speaker": "ann"}, {"start": 0.5, "end": 1.2, "text": "Yes?"}]
    manifest = make_manifest((1.2,), segments=segments, text=None, lang=None)
    build(DescriptionBuilder(manifest, tmp_path / "out"))
    (row,) = read_manifest(tmp_path / "out" / "desta.jsonl")
    assert row["text"] == row["transcription"] == "Hi. Yes?" and "segments" not in row
    assert [segment["metadata"]["duration"]["value"] for segment in row["metadata"]] == [0.5, 0.7]
    assert journaled(tmp_path / "out", "descriptions")[0]["seed"].count("\n") == 1


def test_rejected_descriptions_are_counted_and_left_out(make_manifest, tmp_path):
    def moody(requests):
        texts = ["", "I'm sorry, I cannot.", "A voice."]
        yield from ((request.id, Completion(text, False)) for request, text in zip(requests, texts, strict=False))
        yield requests[3].id, Completion("A voi", True)

    report = build(DescriptionBuilder(make_manifest(), tmp_path / "out"), lambda: moody)
    assert report == {"rows": 4, "kept": 1, "empty": 1, "truncated": 1, "refusal": 1, "echo": 0}
    assert [row["answer"] for row in read_manifest(tmp_path / "out" / "desta.jsonl")] == ["A voice."]
    assert [row["rejected"] for row in journaled(tmp_path / "out", "descriptions")].count(None) == 1


def test_nothing_left_is_an_error(make_manifest, tmp_path):
    with pytest.raises(ValueError, match="descriptions: the filters left no description: .*'empty': 1"):
        silent = lambda requests: ((request.id, Completion("", False)) for request in requests)  # noqa: E731
        build(DescriptionBuilder(make_manifest((1.0,)), tmp_path / "out"), lambda: silent)


def test_shards_are_disjoint_and_the_last_one_writes_the_manifest(make_manifest, tmp_path):
    manifest, out = make_manifest((0.5,) * 12), tmp_path / "out"
    assert build(DescriptionBuilder(manifest, tmp_path / "whole"), questions=["a?", "b?", "c?"])
    for shard in (2, 0):
        builder = DescriptionBuilder(manifest, out, shard, 3)
        assert build(builder, questions=["a?", "b?", "c?"]) is None
        assert not (out / "desta.jsonl").exists()
    ids = [row["audio_filepath"] for row in read_manifest(manifest)]
    assert builder.missing() == {1: sum(shard_of(id, 3) == 1 for id in ids)}
    assert build(DescriptionBuilder(manifest, out, 1, 3), questions=["a?", "b?", "c?"])["kept"] == 12
    whole = read_manifest(tmp_path / "whole" / "desta.jsonl")
    assert read_manifest(out / "desta.jsonl") == whole and len({row["instruction"] for row in whole}) > 1


def test_what_is_done_loads_no_model_again(make_manifest, tmp_path):
    manifest = make_manifest()
    build(DescriptionBuilder(manifest, tmp_path / "out"))
    again = DescriptionBuilder(manifest, tmp_path / "out")
    again.extract_metadata(["duration"], lambda: pytest.fail("classifiers are loaded"))
    build(again, lambda: pytest.fail("the LLM is loaded"))


def test_one_process_at_a_time_writes_a_shard(make_manifest, tmp_path):
    manifest = make_manifest()
    with DescriptionBuilder(manifest, tmp_path / "out", 0, 2).lock():
        with DescriptionBuilder(manifest, tmp_path / "out", 1, 2).lock():
            assert "is in use by another build of shard 0 (process" in lock_elsewhere(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "same"}, "manifest.jsonl:2: id: 'same' is line 1, too"),
        ({"segments": [{"start": 0, "end": 9}]}, r"manifest.jsonl:1: segments\[0\]: start 0 and end 9 are no part"),
        ({"audio_filepath": "text.flac"}, "manifest.jsonl:1: .*text.flac: the audio cannot be read"),
    ],
)
def test_a_bad_line_is_named(change, message, make_manifest, tmp_path):
    (tmp_path / "text.flac").write_text("no audio")
    manifest = make_manifest((0.5, 0.6), rows=[change, {"id": "same"}])
    with pytest.raises(ValueError, match=message):
        build(DescriptionBuilder(manifest, tmp_path / "out"))


@pytest.mark.parametrize("options", [{"questions": []}, {"questions": ["What?"], "template": "{question}"}])
def test_an_llm_that_would_see_no_seed_or_question_is_not_asked(options, make_manifest, tmp_path):
    with pytest.raises(ValueError, match="both slots and a question are needed"):
        DescriptionBuilder(make_manifest(), tmp_path / "out").generate(lambda: engine, **options)


def test_there_is_no_such_shard(make_manifest, tmp_path):
    with pytest.raises(ValueError, match="shard_index=2: with num_shards=2 it is from 0 to 1"):
        DescriptionBuilder(make_manifest(), tmp_path, 2, 2)


def build_by_endpoint(manifest: Path, out: Path, url: str) -> dict | None:
    return build(
        DescriptionBuilder(manifest, out), lambda: EndpointEngine(url, "tiny", concurrency=4, first_wait=0.01)
    )


def build_in_a_fork(*arguments) -> None:
    tqdm.set_lock(
        threading.RLock()
    )  # a fork killed while it held the inherited lock would block its parent and siblings
    build_by_endpoint(*arguments)


def test_ten_kills_lose_and_double_nothing(endpoint, tmp_path):
    manifest, out, clips = tmp_path / "manifest.jsonl", tmp_path / "out", 80
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.flac", 0.1 * random.standard_normal(clips * 3200), 16000)
    row = {"audio_filepath": "long.flac", "duration": 0.2, "text": "hello"}
    manifest.write_text("".join(json.dumps(row | {"offset": 0.2 * i}) + "\n" for i in range(clips)))
    endpoint.seconds = 0.002

    def written(folder: Path) -> int:
        return sum(file.stat().st_size for file in folder.rglob("*.jsonl"))

    build_by_endpoint(manifest, tmp_path / "whole", endpoint.url)
    whole = read_manifest(tmp_path / "whole" / "desta.jsonl")
    (tmp_path / "whole" / "desta.jsonl").unlink()
    total = written(tmp_path / "whole")  # of the journals

    context = multiprocessing.get_context("fork")  # a fresh interpreter would take seconds to import
    for kill in range(10):
        process = context.Process(target=build_in_a_fork, args=(manifest, out, endpoint.url))
        process.start()
        enough = (kill + random.random()) / 11 * total
        while process.is_alive() and written(out) < enough:
            time.sleep(0.0005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was to be killed before it was done"
        assert not (out / "desta.jsonl").exists()

    assert build_by_endpoint(manifest, out, endpoint.url)["kept"] == clips
    ids = [row["id"] for row in read_manifest(out / "desta.jsonl")]
    assert len(set(ids)) == clips
    for stage in ("metadata", "descriptions"):
        assert Counter(row["id"] for row in journaled(out, stage)) == Counter(ids)
    assert read_manifest(out / "desta.jsonl") == whole
