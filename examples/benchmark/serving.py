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

"""How a server bears load: throughput beside one request after the other, answers, memory.

    python examples/benchmark/serving.py salm_whisper_smollm2 prompts/test_en.jsonl --output docs/results/serving.json
    python examples/benchmark/serving.py instruct_las_digits digits.jsonl --requests 3000

A server is started as a process of its own (``nemo-speechllm serve``). It is asked for the manifest's recordings by
one client, one after the other, and then by many at a time, every eighth time with a file that is cut short. Answers
are compared with those of ``transcribe()``; memory is that of the server's process after a quarter of the requests, at
the end, and of thousands after the first 200, 1000 and 3000.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.files import write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.models import load_model

BROKEN_EVERY = 8
MEMORY_AFTER = (200, 1000, 3000)  # requests; a leak shows when the first have warmed everything up


@contextmanager
def served(model: str, batch_size: int) -> Iterator[tuple[str, int]]:
    """Start a server, and yield its address and the number of its process."""
    command = [sys.executable, "-m", "nemo_speechllm", "serve", f"model='{model}'", "port=0"]
    process = subprocess.Popen([*command, f"batch_size={batch_size}"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        if not told:
            raise RuntimeError("the server did not start; its error stands above")
        yield told.split()[-1], process.pid
    finally:
        process.terminate()
        process.wait()


def memory_mib(process: int) -> float:
    """Return what a process holds in memory, on Linux."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


@dataclass
class Load:
    """Requests to a server, and what became of them.

    Attributes:
        client: of the server.
        model: its name there.
        recordings: contents of files.
        expected: what ``transcribe()`` answers to them.
        outcomes: ``equal``, ``different``, ``refused`` (a broken file) or the name of an error, by request.
        memory: in MiB, when each request was answered.
    """

    client: openai.OpenAI
    model: str
    recordings: list[bytes]
    expected: list[str]
    process: int
    outcomes: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def ask(self, number: int, broken: bool = False) -> None:
        """Send a recording, or the first half of one."""
        index = number % len(self.recordings)
        content = self.recordings[index]
        try:
            file = ("a.wav", content[: len(content) // 2] if broken else content)
            text = self.client.audio.transcriptions.create(model=self.model, file=file).text
            outcome = "equal" if text == self.expected[index] else "different"
        except openai.APIError as error:
            outcome = "refused" if broken and isinstance(error, openai.BadRequestError) else type(error).__name__
        self.outcomes.append(outcome)
        self.memory.append(memory_mib(self.process))


def one_by_one(load: Load) -> float:
    """Return the seconds that the recordings take where each request waits for the one before."""
    began = time.perf_counter()
    for number in range(len(load.recordings)):
        load.ask(number)
    return time.perf_counter() - began


def together(load: Load, requests: int, clients: int) -> float:
    """Return the seconds that so many requests take, so many at a time."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda n: load.ask(n, broken=n % BROKEN_EVERY == BROKEN_EVERY - 1), range(requests)))
    return time.perf_counter() - began


def parse_arguments() -> argparse.Namespace:
    """Return what is served and asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a shipped checkpoint or a .nemo file")
    parser.add_argument("manifest", type=Path, help="whose recordings are sent")
    parser.add_argument("--recordings", type=int, default=32, help="so many of them (default: 32)")
    parser.add_argument("--requests", type=int, default=200, help="sent in all, so many at a time: (default: 200)")
    parser.add_argument("--clients", type=int, default=16, help="at a time (default: 16)")
    parser.add_argument("--batch-size", type=int, default=8, help="of the server (default: 8)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def figures(arguments: argparse.Namespace) -> dict[str, float]:
    """Ask the server and return what came of it."""
    rows = read_manifest(arguments.manifest, locate_audio=True)[: arguments.recordings]
    paths = [row["audio_filepath"] for row in rows]
    expected = load_model(arguments.model).transcribe(paths, batch_size=arguments.batch_size)
    contents = [Path(path).read_bytes() for path in paths]
    name = arguments.model.rpartition("/")[2].removesuffix(".nemo")
    with served(arguments.model, arguments.batch_size) as (address, process):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=600)
        load = Load(client, name, contents, expected, process)
        load.ask(0)  # the first is slower
        alone = len(contents) / one_by_one(load)
        load.outcomes.clear(), load.memory.clear()
        broken = arguments.requests // BROKEN_EVERY  # which cost no answer
        at_once = (arguments.requests - broken) / together(load, arguments.requests, arguments.clients)
    lost = arguments.requests - load.outcomes.count("equal") - load.outcomes.count("refused")
    return {
        "requests": arguments.requests,
        "broken_files": broken,
        "refused": load.outcomes.count("refused"),
        "equal": load.outcomes.count("equal"),
        "lost_or_different": lost,
        "answers_per_second_one_by_one": round(alone, 3),
        "answers_per_second": round(at_once, 3),
        "speed_up": round(at_once / alone, 2),
        "memory_quarter_mib": round(load.memory[len(load.memory) // 4]),
        "memory_end_mib": round(load.memory[-1]),
        **{f"memory_{count}_mib": round(load.memory[count - 1]) for count in MEMORY_AFTER if count < len(load.memory)},
    }


def goals(told: dict[str, float], command: str) -> dict[str, list[dict]]:
    """Return the figures beside what they should be."""
    growth = told["memory_end_mib"] - told["memory_quarter_mib"]
    rows = [
        ("requests lost, or answered with another text than transcribe()", "0", told["lost_or_different"], "=="),
        ("broken files refused", str(told["broken_files"]), told["refused"], "=="),
        ("throughput beside one by one", "> 1", told["speed_up"], ">"),
        ("memory gained over three quarters of the requests, MiB", "<= 100", growth, "<="),
    ]
    if "memory_200_mib" in told:
        gain = 100 * (told["memory_end_mib"] / told["memory_200_mib"] - 1)
        rows.append(("memory gained after the first 200 requests, %", "<= 5", round(gain, 1), "<="))
    met = {"==": lambda value, goal: value == goal, ">": lambda v, g: v > g, "<=": lambda v, g: v <= g}
    return {
        "figures": told,
        "goals": [
            {
                "name": name,
                "goal": goal,
                "value": value,
                "met": met[sign](value, float(goal.split()[-1])),
                "command": command,
            }
            for name, goal, value, sign in rows
        ],
    }


def main() -> int:
    """Print the figures, write them where that is asked for, and return 1 where something was lost."""
    arguments = parse_arguments()
    told = figures(arguments)
    emit(*(f"{name.replace('_', ' ')}: {value}" for name, value in told.items()))
    if arguments.output:
        command = f"python examples/benchmark/serving.py {arguments.model} {arguments.manifest.name}"
        command += f" --requests {arguments.requests}"
        write_json(arguments.output, goals(told, command))
    return int(told["lost_or_different"] > 0)


if __name__ == "__main__":
    run_command(main)
