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


"""Audio files in every format that is read."""

from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 16000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).clip(-1, 1).astype(np.float32)
SNDFILE = ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.au", "a.caf", "a.w64", "a.rf64", "a.oga"]
FFMPEG = {
    "a.m4a": "aac",
    "a.mp4": "aac",
    "a.aac": "aac",
    "a.webm": "libopus",
    "a.mkv": "libopus",
    "a.3gp": "aac",
    "a.amr": "libopencore_amrnb",
}


def encode(path: Path, codec: str, samples: np.ndarray) -> None:
    """Write samples at 16 kHz with a codec of FFmpeg's."""
    rate = {"libopus": 48000, "libopencore_amrnb": 8000}.get(codec, RATE)
    with av.open(str(path), "w", format={".aac": "adts"}.get(path.suffix)) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for part in av.AudioResampler(format=stream.format, layout="mono", rate=rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def make(path: Path) -> Path:
    """Write two seconds of noise in the format that the name says."""
    if path.name in FFMPEG:
        encode(path, FFMPEG[path.name], NOISE)
    else:
        formats = {".oga": "OGG", ".rf64": "RF64"}
        soundfile.write(path, NOISE, RATE, format=formats.get(path.suffix))
    return path
