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

"""Trains a SentencePiece tokenizer on the transcripts of manifests, for NeMo's CTC models (``model.tokenizer.dir``).

    python examples/data/train_tokenizer.py train_en.jsonl train_fr.jsonl --out data/tokenizer_512 --vocab-size 512

Case is folded by default, and inside the tokenizer itself: training and transcripts are lower case without any change to the
manifests. Punctuation stays.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from nemo_speechllm.data.manifest import read_manifest


def transcripts(manifests: list[Path]) -> list[tuple[str, float]]:
    """Text and seconds of every line.

    Raises:
        ValueError: a line has no text.
    """
    pairs = []
    for manifest in manifests:
        for number, row in enumerate(read_manifest(manifest), 1):
            if not str(row.get("text") or "").strip():
                raise ValueError(f"{manifest}:{number}: the line has no 'text'; see examples/data/check_manifest.py")
            pairs.append((row["text"], row.get("duration", 0.0)))
    return pairs


def train(texts: list[str], out: Path, vocab_size: int, keep_case: bool) -> SentencePieceProcessor:
    """Writes ``tokenizer.model``, ``tokenizer.vocab`` and ``vocab.txt`` to ``out``: all or none."""
    # takes seconds to import; --help should not wait for it
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".partial-") as folder:
        corpus, partial = Path(folder) / "text.txt", Path(folder) / "tokenizer"
        corpus.write_text("\n".join(" ".join(text.split()) for text in texts) + "\n", encoding="utf-8")
        create_spt_model(
            str(corpus),
            vocab_size,
            sample_size=-1,
            do_lower_case=not keep_case,
            output_dir=str(partial),
            remove_extra_whitespaces=True,
        )
        os.replace(partial, out)
    return SentencePieceProcessor(model_file=str(out / "tokenizer.model"))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+", help="NeMo manifests, of any languages")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tokenizer; must not exist")
    parser.add_argument("--vocab-size", type=int, default=512, help="pieces at most (default: 512)")
    parser.add_argument("--keep-case", action="store_true", help="tell upper from lower case")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"--out {arguments.out} exists; give another folder or remove it")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    try:
        pairs = transcripts(arguments.manifests)
        texts = [text for text, _ in pairs]
        tokenizer = train(texts, arguments.out, arguments.vocab_size, arguments.keep_case)
    except (OSError, ValueError, RuntimeError) as error:  # SentencePiece raises RuntimeError
        print(f"error: {error}", file=sys.stderr)
        return 2
    ids = [tokenizer.encode(text) for text in texts]
    unknown = sorted({text for text, row in zip(texts, ids) if tokenizer.unk_id() in row})
    count, seconds = sum(map(len, ids)), sum(duration for _, duration in pairs)
    print(f"{arguments.out}: {tokenizer.vocab_size()} pieces, {sum(map(len, texts)) / count:.1f} characters a token")
    if seconds:
        print(f"{count / seconds:.1f} tokens a second; CTC needs at least one state for each")
    if unknown:
        print(f"{len(unknown)} texts have characters the tokenizer does not know, e.g. {unknown[0]!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
