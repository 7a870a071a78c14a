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

"""From a manifest to a manifest of descriptions: metadata, seed transcripts, generation, each row once, in shards.

A folder holds a journal per stage and shard. Whoever finds all of them complete writes the manifest, so shards that
ran on other machines are merged by copying their journals into one folder and running the command again.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, AudioError
from nemo_speechllm.desta.metadata import Clip, Model, describe_clip, segments_of
from nemo_speechllm.desta.rejection import REASONS, reason_to_reject
from nemo_speechllm.desta.seed import ATTRIBUTES, seed_transcript
from nemo_speechllm.engines.engine import Engine, Request
from nemo_speechllm.files import FolderLock, Journal
from nemo_speechllm.manifests.manifest import audio_path, read_manifest, relocate, write_manifest

METADATA, DESCRIPTIONS = "metadata", "descriptions"


class DescriptionBuilder:
    """One shard of a manifest on its way to descriptions. Each stage takes up what is on disk.

    Args:
        manifest: NeMo manifest; a row's ``id`` is its own or made of its audio's path and offset.
        output_dir: folder of ``metadata/``, ``descriptions/`` and the final ``desta.jsonl``.
        shard_index, num_shards: this shard's number from 0, and of how many; a row's shard depends on its id alone.

    Raises:
        FileNotFoundError: the manifest or an audio of it is missing.
        ValueError: a line is damaged, two rows have one id, or there is no such shard; the message names the line.
    """

    def __init__(self, manifest: str | Path, output_dir: str | Path, shard_index: int = 0, num_shards: int = 1):
        if not 0 <= shard_index < num_shards:
            raise ValueError(
                f"shard_index={shard_index}: with num_shards={num_shards} it is from 0 to {num_shards - 1}"
            )
        self.manifest, self.output_dir = Path(manifest), Path(output_dir)
        self.shard_index, self.num_shards = shard_index, num_shards
        read_manifest(manifest, locate_audio=True)
        self.rows = _rows_by_id(manifest)
        self.lines = {id: number for number, id in enumerate(self.rows, 1)}
        self.ids = [id for id in self.rows if shard_of(id, num_shards) == shard_index]

    def journal(self, stage: str, shard_index: int | None = None) -> Journal:
        """Return the journal of a stage and a shard, by default this one."""
        index = self.shard_index if shard_index is None else shard_index
        return Journal(self.output_dir / stage / f"{index:05d}-of-{self.num_shards:05d}.jsonl", "a finished row")

    def lock(self) -> FolderLock:
        """To be held while the stages run: two processes must not write one shard. A kill frees it.

        Raises:
            FolderInUse: another process has it.
        """
        return FolderLock(self.output_dir, f"build of shard {self.shard_index}", f"-shard-{self.shard_index:05d}")

    def extract_metadata(
        self,
        names: Sequence[str],
        make_models: Callable[[], Mapping[str, Model]] = dict,
        channel_selector: int | str | None = None,
    ) -> None:
        """First stage: the records of every segment.

        Args:
            names: measurements, some of ``metadata.EXTRACTORS``.
            make_models: loads the classifiers by attribute; called if there is anything to do.
            channel_selector: of files with several channels.

        Raises:
            ValueError: an audio cannot be read or a segment is not inside it; the message names the line.
        """
        journal = self.journal(METADATA)
        todo = self._todo(journal)
        models = make_models() if todo else {}
        for id in self._progress(todo, METADATA):
            row = self.rows[id]
            path = audio_path(row, self.manifest)
            try:
                audio = Audio.from_file(path, row.get("offset"), row.get("duration"), channel_selector)
                segments = _described_segments(row, audio.load().numpy(), names, models)
            except (AudioError, ValueError) as error:
                raise ValueError(f"{self.manifest}:{self.lines[id]}: {error}") from error
            journal.append([{"id": id, "segments": segments}])

    def generate(
        self,
        make_engine: Callable[[], Engine],
        questions: Sequence[str],
        template: str = "{seed}\n{question}",
        attributes: Iterable[str] | None = None,
        seed: int = 0,
    ) -> None:
        """Second stage: a question to every clip, answered from its seed transcript and passed through the filters.

        Args:
            make_engine: loads or connects to the LLM; called if there is anything to do.
            questions: one is drawn for each clip by (seed, id).
            template: the user's message, with the slots ``{seed}`` and ``{question}``.
            attributes: what the seed transcript may tell; None: all.
            seed: of the draw.

        Raises:
            ValueError: there is no question, or the template lacks a slot.
        """
        if not questions or not all(slot in template for slot in ("{seed}", "{question}")):
            raise ValueError(f"template={template!r}, questions={questions}: both slots and a question are needed")
        journal = self.journal(DESCRIPTIONS)
        metadata = {row["id"]: row["segments"] for row in self.journal(METADATA).rows}
        options = {} if attributes is None else {"attributes": attributes}
        seeds = {id: seed_transcript(metadata[id], **options) for id in self._todo(journal)}
        asked = {id: random.Random(f"{seed} {id}").choice(questions) for id in seeds}
        requests = [
            Request(id, template.replace("{question}", asked[id]).replace("{seed}", seeds[id])) for id in seeds
        ]
        if not requests:
            return
        with self._progress(requests, DESCRIPTIONS) as progress:
            for id, completion in make_engine()(requests):
                reason = reason_to_reject(completion, seeds[id])
                answer = {
                    "id": id,
                    "question": asked[id],
                    "seed": seeds[id],
                    "answer": completion.text,
                    "rejected": reason,
                }
                journal.append([answer])
                progress.update()

    def finish(self, attributes: Iterable[str] | None = None) -> dict[str, int] | None:
        """Last stage: ``desta.jsonl``, once the rows of all shards are there.

        Args:
            attributes: those that `generate` was given, which each row names beside its ``metadata``.

        Returns:
            how many rows there are, are ``kept``, and are rejected by reason; None while rows are missing.

        Raises:
            ValueError: the filters left nothing.
        """
        described = self._all_rows(DESCRIPTIONS)
        if described.keys() != self.rows.keys():
            return None
        metadata = self._all_rows(METADATA)
        kept = [id for id in self.rows if described[id]["rejected"] is None]
        reasons = Counter(row["rejected"] for row in described.values())
        report = {"rows": len(self.rows), "kept": len(kept)} | {reason: reasons[reason] for reason in REASONS}
        if not kept:
            raise ValueError(
                f"{self.output_dir / DESCRIPTIONS}: the filters left no description: {report}; read some there"
            )
        target = self.output_dir / "desta.jsonl"  # NeMo validates on no file called manifest
        custom = {"attributes": list(ATTRIBUTES if attributes is None else attributes)}
        examples = (self._example(id, metadata[id]["segments"], described[id], target) | custom for id in kept)
        write_manifest(target, examples)
        return report

    def missing(self) -> dict[int, int]:
        """Rows that are still to be described, by shard."""
        described = self._all_rows(DESCRIPTIONS)
        return dict(Counter(shard_of(id, self.num_shards) for id in self.rows if id not in described))

    def _todo(self, journal: Journal) -> list[str]:
        done = {row["id"] for row in journal.rows}
        return [id for id in self.ids if id not in done]

    def _progress(self, todo: Sequence, stage: str) -> tqdm:
        done = len(self.ids) - len(todo)
        # rows arrive a batch at once; tqdm would show the first of them until the next batch
        return tqdm(
            todo if stage == METADATA else None,
            total=len(self.ids),
            initial=done,
            desc=stage,
            unit="clip",
            mininterval=0,
        )

    def _all_rows(self, stage: str) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for index in range(self.num_shards) for row in self.journal(stage, index).rows}

    def _example(self, id: str, segments: list[dict], described: dict[str, Any], target: Path) -> dict[str, Any]:
        """Return a row as ``ConversationBuilder`` reads it; DeSTA2 reads ``transcription`` beside the audio."""
        row = {key: value for key, value in self.rows[id].items() if key != "segments"}
        text = row.get("text") or " ".join(segment["text"] for segment in segments if segment.get("text"))
        return relocate(row, self.manifest, target) | {
            "id": id,
            "text": text,
            "transcription": row.get("transcription", text),
            "instruction": described["question"],
            "answer": described["answer"],
            "metadata": segments,
        }


def shard_of(id: str, num_shards: int) -> int:
    """Return the shard of a row, by the hash of its id."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") % num_shards


def _rows_by_id(manifest: str | Path) -> dict[str, dict]:
    rows: dict[str, dict] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(read_manifest(manifest), 1):
        offset = f"@{row['offset']}" if row.get("offset") else ""
        id = str(row.get("id") or f"{row['audio_filepath']}{offset}")
        if id in rows:
            raise ValueError(
                f"{manifest}:{number}: id: {id!r} is line {lines[id]}, too → give each an `id` of its own"
            )
        rows[id], lines[id] = row, number
    return rows


def _described_segments(row: dict, samples, names: Sequence[str], models: Mapping[str, Model]) -> list[dict[str, Any]]:
    segments = segments_of(row, len(samples) / SAMPLE_RATE)
    described = []
    for segment in segments:
        start, end = (round(segment[time] * SAMPLE_RATE) for time in ("start", "end"))
        records = describe_clip(Clip(samples[start:end], SAMPLE_RATE, segment), names, models)
        kept = {key: segment[key] for key in ("start", "end", "text", "speaker") if key in segment}
        described.append(kept | {"metadata": records})
    return described
