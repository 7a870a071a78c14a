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

"""What is wrong with a checkpoint."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nemo_speechllm import assets
from nemo_speechllm.recipes import SettingError

DOWNLOAD_AGAIN = "If it worked before, it was damaged: copy or download it again; if not, ask who made it"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not fit; the message names the file and the remedy."""


@contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into a `CheckpointError` that names the file, the cause and the remedy."""
    try:
        yield
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CheckpointError(
            f"{path} is not a whole .nemo file ({type(error).__name__}: {error}); copy or download it again"
        ) from error
    except assets.AssetError as error:
        raise CheckpointError(
            f"{path} refers to a pretrained part that cannot be found: {error}. If it has moved, pass "
            'override={"llm": {"pretrained": "/new/place"}} to restore_from (or '
            'override={"perception": {"encoder": {"pretrained": "/new/place"}}})'
        ) from error
    except SettingError as error:  # of an override, or of a file that another version wrote
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        raise CheckpointError(
            f"{path} cannot be restored: {type(error).__name__}: {str(error)[:2000]}. {DOWNLOAD_AGAIN}"
        ) from error


def abridged(names: list[str]) -> str:
    """Return names as they stand in a message: the first five, and how many more."""
    return f"{names[:5]}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
