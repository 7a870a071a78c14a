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

"""Train a SentencePiece tokenizer on the transcripts of manifests, for NeMo's CTC models (``model.tokenizer.dir``).

    python examples/data/train_tokenizer.py train_en.jsonl train_fr.jsonl --out data/tokenizer_512 --vocab-size 512
    python examples/data/train_tokenizer.py train.jsonl --instructions --out data/tokenizer_las

Case is folded by default, and inside the tokenizer itself: training and transcripts are lower case without any change
to the manifests. Punctuation stays.

``--instructions`` is for InstructLAS: text stays as it is, each letter is known in upper and in lower case, ``[EOT]``
and the end token are symbols, and the package's instructions (those seen in training) are learned from as well.
``--texts`` are more texts, one a line, such as instructions of your own.
"""

import argparse
import os
import re
import string
import tempfile
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.prompts.instruction_pools import framed, grammar, is_clause, load_pools
from nemo_speechllm.prompts.segments import END_OF_INSTRUCTION
from nemo_speechllm.prompts.skills import apply_rule, argument_lists, fill, slots_of


def manifest_texts(manifests: list[Path], keys: list[str]) -> list[tuple[str, float]]:
    """Return the texts under a line's keys, joined by line breaks, and its seconds, of every line.

    Raises:
        ValueError: a line has no text.
    """
    pairs = []
    for manifest in manifests:
        for number, row in enumerate(read_manifest(manifest), 1):
            texts = [str(row[key]) for key in keys if str(row.get(key) or "").strip()]
            if not texts and "" not in [row.get(key) for key in keys]:  # an empty one is of a recording of silence
                wanted = " and no ".join(map(repr, keys))
                raise ValueError(f"{manifest}:{number}: the line has no {wanted}; see examples/data/check_manifest.py")
            pairs.append(("\n".join(texts), row.get("duration", 0.0)))
    return pairs


def normalization(keep_case: bool, instructions: bool) -> str:
    """SentencePiece's name of what it does to text before it splits it."""
    if instructions:
        return "identity"
    return "nmt_nfkc" if keep_case else "nmt_nfkc_cf"


def instruction_texts() -> list[str]:
    """Return the texts that the package's instructions are made of.

    They are its instructions of the split ``seen`` (of a clause, as it is and in a frame), what their slots are filled
    with, and what a rule writes besides words.
    """
    templates = [template for pool in load_pools().values() for template in pool.seen]
    clauses, frames = [template for template in templates if is_clause(template)], grammar()["frames"]
    templates += [framed(clause, frames[number % len(frames)]) for number, clause in enumerate(clauses)]
    fillings = [text for texts in argument_lists().values() for text in texts]
    instructions = [fill(template, dict.fromkeys(slots_of(template), "")) for template in templates]
    return [*instructions, *fillings, " ".join(string.digits), apply_rule("spell_word", "word", {"word": "word"})]


def symbols_and_letters(texts: list[str], instructions: bool) -> dict:
    """SentencePiece's settings for its symbols, and for the letters it must know."""
    if not instructions:
        return {"bos_id": -1, "eos_id": -1}
    letters = {case for letter in set("".join(texts)) for case in letter + letter.upper() + letter.lower()}
    return {
        "bos_id": -1,
        "eos_id": 1,
        "control_symbols": [END_OF_INSTRUCTION],
        "required_chars": "".join(sorted(letters - {letter for letter in letters if letter.isspace()})),
    }


def reason_of(error: Exception, vocab_size: int) -> str:
    """Return what SentencePiece's error means for who gave the texts and the number of pieces."""
    if needed := re.search(r"required_chars\. \d+ vs (\d+)", str(error)):
        return (
            f"--vocab-size {vocab_size} is too small: the letters and symbols of these texts alone are {needed[1]} "
            f"pieces; give --vocab-size {int(needed[1]) * 2}, or more"
        )
    if "sentences_.empty" in str(error):
        return "the manifests have no text to learn from; give others, or --texts"
    return f"SentencePiece cannot make {vocab_size} pieces of these texts ({error}); give another --vocab-size"


def train(
    texts: list[str], out: Path, vocab_size: int, keep_case: bool = False, instructions: bool = False
) -> SentencePieceProcessor:
    """Write ``tokenizer.model``, ``tokenizer.vocab`` and ``vocab.txt`` to ``out``: all or none.

    Raises:
        ValueError: there is no text, or too few pieces for its letters.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".partial-") as folder:
        partial = Path(folder) / "tokenizer"
        partial.mkdir()
        try:
            SentencePieceTrainer.train(
                sentence_iterator=(" ".join(line.split()) for text in texts for line in text.splitlines()),
                model_prefix=str(partial / "tokenizer"),
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_name=normalization(keep_case, instructions),
                minloglevel=1,
                **symbols_and_letters(texts, instructions),
            )
        except (RuntimeError, OSError, ValueError, OverflowError, TypeError) as error:  # of C++, by their line there
            raise ValueError(reason_of(error, vocab_size)) from error
        tokenizer = SentencePieceProcessor(model_file=str(partial / "tokenizer.model"))
        pieces = [tokenizer.id_to_piece(index) for index in range(tokenizer.vocab_size())]
        (partial / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
        os.replace(partial, out)
    return SentencePieceProcessor(model_file=str(out / "tokenizer.model"))


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+", help="NeMo manifests, of any languages")
    parser.add_argument(
        "--keys", nargs="+", default=["text"], help="keys of their lines that hold text (default: text)"
    )
    parser.add_argument("--texts", type=Path, nargs="+", default=[], help="files of more texts, one a line")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tokenizer; must not exist")
    parser.add_argument("--vocab-size", type=int, default=512, help="pieces at most (default: 512)")
    case = parser.add_mutually_exclusive_group()
    case.add_argument("--keep-case", action="store_true", help="tell upper from lower case")
    case.add_argument(
        "--instructions", action="store_true", help="for InstructLAS: text as it is, [EOT] and an end token"
    )
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"--out {arguments.out} exists; give another folder or remove it")
    return arguments


def main() -> None:
    """Train the tokenizer, and tell how it splits the texts."""
    arguments = parse_arguments()
    pairs = manifest_texts(arguments.manifests, arguments.keys)
    texts = [text for text, _ in pairs]
    lines = [line for path in arguments.texts for line in path.read_text(encoding="utf-8").splitlines()]
    lines += instruction_texts() if arguments.instructions else []
    tokenizer = train(texts + lines, arguments.out, arguments.vocab_size, arguments.keep_case, arguments.instructions)
    ids = [tokenizer.encode(" ".join(text.split())) for text in texts]
    everything = {" ".join(text.split()) for text in texts + lines}
    unknown = sorted(text for text in everything if tokenizer.unk_id() in tokenizer.encode(text))
    count, seconds = sum(map(len, ids)), sum(duration for _, duration in pairs)
    if tokenizer.vocab_size() < arguments.vocab_size:
        emit(f"--vocab-size {arguments.vocab_size} is more than these texts give")
    length = sum(map(len, texts)) / max(1, count)
    emit(f"{arguments.out}: {tokenizer.vocab_size()} pieces, {length:.1f} characters a token")
    if seconds:
        emit(f"{count / seconds:.1f} tokens a second; CTC needs at least one state for each")
    if unknown:
        emit(f"{len(unknown)} texts have characters the tokenizer does not know, e.g. {unknown[0]!r}")


if __name__ == "__main__":
    run_command(main)
