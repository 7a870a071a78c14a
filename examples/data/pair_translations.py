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

"""Speech in one language with its translation, of manifests that say the same in two languages.

    python examples/data/pair_translations.py test_en.jsonl test_es.jsonl --out test_en-es.jsonl

A line of the first manifest is paired with that of the second whose ``key`` is the same, and keeps audio and ``text``;
the other's ``text`` is its ``answer``, the other's ``lang`` its ``target_lang``. Lines without a counterpart are left
out and counted.
"""

import argparse
from pathlib import Path

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.manifests.manifest import read_manifest, relocate, write_manifest


def translations_of(rows: list[dict], manifest: Path, key: str) -> dict[str, dict]:
    """Rows by their key.

    Raises:
        ValueError: a row has no key, text or language, or two rows of one key have different texts.
    """
    found: dict[str, dict] = {}
    for number, row in enumerate(rows, 1):
        missing = [name for name in (key, "text", "lang") if not row.get(name)]
        if missing:
            raise ValueError(f"{manifest}:{number}: {', '.join(missing)}: missing; add it, or remove the line")
        if found.setdefault(row[key], row)["text"] != row["text"]:
            raise ValueError(f"{manifest}:{number}: {key}: {row[key]!r} has another text above; keep one of the lines")
    return found


def pair_rows(sources: list[dict], translations: dict[str, dict], key: str) -> list[dict]:
    """Return the sources that have a translation, each with it."""
    pairs = ((row, translations.get(row.get(key))) for row in sources)
    return [row | {"answer": other["text"], "target_lang": other["lang"]} for row, other in pairs if other]


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="NeMo manifest: the speech")
    parser.add_argument("target", type=Path, help="NeMo manifest: the texts that it is to be translated into")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument("--key", default="key", help="what lines of the same meaning have in common (default: key)")
    return parser.parse_args()


def main() -> None:
    """Pair the lines of the manifests and write them; count those without a counterpart."""
    arguments = parse_arguments()
    sources = read_manifest(arguments.source)
    translations = translations_of(read_manifest(arguments.target), arguments.target, arguments.key)
    pairs = pair_rows(sources, translations, arguments.key)
    if not pairs:
        raise ValueError(f"no {arguments.key!r} is in both {arguments.source} and {arguments.target}")
    write_manifest(arguments.out, (relocate(row, arguments.source, arguments.out) for row in pairs))
    emit(f"{arguments.out}: {len(pairs)} pairs; {len(sources) - len(pairs)} lines have no counterpart")


if __name__ == "__main__":
    run_command(main)
