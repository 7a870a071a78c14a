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

"""Fetches pretrained models: ``python -m nemo_speechllm.assets whisper-base smollm2-135m-instruct``."""

import argparse
import logging
import sys
from pathlib import Path

from nemo_speechllm.assets.cache import default_cache_dir
from nemo_speechllm.assets.catalogue import AssetError, available
from nemo_speechllm.assets.references import resolve


def main() -> None:
    """Fetch the named assets and print their folders, one a line."""
    parser = argparse.ArgumentParser(prog="python -m nemo_speechllm.assets", description=main.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"any model reference; registered: {available()}")
    parser.add_argument("--cache-dir", type=Path, help=f"folder of converted models (now {default_cache_dir()})")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in arguments.names:
        try:
            print(resolve(name, arguments.cache_dir))
        except AssetError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
