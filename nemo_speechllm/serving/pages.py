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

"""What a browser reads: the page that uses the routes, and the reports of evaluations in a folder."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

REPORT = "report.html"  # as examples/report.py writes it: all that it shows is in it
# nothing from, or to, another host
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; media-src blob:"
)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; sandbox"
logger = logging.getLogger(__name__)


class Reports:
    """The reports in a folder and in those beneath it, by name: their paths in it, ``mine/test/report.html``.

    What is asked for is looked up among the names of those found and never becomes a path, so that nothing else can
    be read. Links are not followed.

    Args:
        folder: is looked through whenever something is asked for; reports may come and go, and there may be none yet.

    Raises:
        NotADirectoryError: there is no such folder.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder).absolute()
        if not self._folder.is_dir():
            raise NotADirectoryError(
                f"reports={folder}: there is no such folder; the path counts from {Path.cwd()}. Give evaluate's "
                "output_dir, or a folder above it"
            )

    def found(self) -> dict[str, Path]:
        """Return the reports by name; a byte of a name that is no UTF-8 is U+FFFD."""
        return {os.fsencode(path.relative_to(self._folder)).decode(errors="replace"): path for path in self._paths()}

    def _paths(self) -> Iterator[Path]:
        for folder, _, files in os.walk(self._folder, onerror=lambda error: logger.warning("reports: %s", error)):
            path = Path(folder, REPORT)
            if REPORT in files and stat.S_ISREG(path.lstat().st_mode):
                yield path

    def page(self, name: str) -> Response | None:
        """Return a report, or their list where the name is empty; None: there is none of that name."""
        found = self.found()
        if not name:
            return _html(_rendered("reports.html", names=sorted(found)), REPORT_POLICY)
        return _html(found[name].read_bytes(), REPORT_POLICY) if name in found else None


def main_page(has_reports: bool) -> Response:
    """Return the page that uses the routes.

    Args:
        has_reports: it has a link to them.
    """
    return _html(_rendered("page.html", reports=has_reports), PAGE_POLICY)


def _rendered(template: str, **values: object) -> str:
    loader = PackageLoader("nemo_speechllm", "serving")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(**values)


def _html(content: str | bytes, policy: str) -> Response:
    return HTMLResponse(content, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})
