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

"""What a training has logged, read back from TensorBoard's files."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Curve = dict[int, float]  # value by step


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return every scalar of the event files below a run's folder; of a resumed run the later file's values count.

    Raises:
        ValueError: there are none.
    """
    curves: dict[str, Curve] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(file)).Reload()
        for name in events.Tags()["scalars"]:
            curves.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    if not curves:
        raise ValueError(
            f"{folder} holds no scalars of a training; give the folder of a run (exp_manager.exp_dir), trained with "
            "exp_manager.create_tensorboard_logger=true"
        )
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}
