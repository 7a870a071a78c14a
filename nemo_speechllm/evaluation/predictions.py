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

"""Predictions that grow batch by batch and can be taken up again after a kill."""

from pathlib import Path
from typing import Any

from nemo_speechllm.files import FolderLock, Journal, claim_record, write_json


class PredictionLog:
    """``predictions.jsonl`` in a folder, and in ``run.json`` beside it what these predictions depend on.

    Args:
        folder: made if missing.
        run: whatever changes the predictions (fingerprint of the model, hash of the manifest, settings); JSON types.

    The folder is this log's alone as long as the log lives.

    Raises:
        FolderInUse: another process writes into the folder.
        ValueError: the folder holds predictions of another run, or a line of them is damaged.
    """

    def __init__(self, folder: str | Path, run: dict[str, Any]):
        self.folder = Path(folder)
        self.path = self.folder / "predictions.jsonl"
        self._lock = FolderLock(self.folder, "evaluation")
        self._claim(self.folder / "run.json", run)
        self._journal = Journal(self.path, "a prediction")

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """Those that are on disk, in the order they were appended."""
        return self._journal.rows

    def append(self, predictions: list[dict[str, Any]]) -> None:
        """Add predictions and makes sure that they are on disk."""
        self._journal.append(predictions)

    def _claim(self, record: Path, run: dict[str, Any]) -> None:
        if not self.path.exists():
            write_json(record, run)
            return
        if not record.exists():
            raise ValueError(
                f"{self.path} exists without {record.name}, so nobody knows whose predictions it holds; "
                "give another output_dir, or remove it"
            )
        claim_record(record, run, "predictions of another evaluation")
