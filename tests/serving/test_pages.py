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

"""What a browser reads: the page, and of a folder its reports and nothing else."""

import base64
import http.client
import re
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from nemo_speechllm.serving.pages import Reports
from tests.serving.conftest import serving

SECRET = "nobody may read this"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two reports, one of them with a name that needs quoting, among what is none; and links to what lies outside."""
    outside = tmp_path_factory.mktemp("outside")
    folder = outside / "runs"
    for name in ("mine/test", "à b #1?/50%"):
        (folder / name).mkdir(parents=True)
        (folder / name / "report.html").write_text(f"<p>report of {name}", encoding="utf-8")
    (outside / "secret.txt").write_text(SECRET)
    (outside / "report.html").write_text(SECRET)
    (folder / "mine" / "predictions.jsonl").write_text(SECRET)
    (folder / "mine" / "Report.html").write_text(SECRET)
    (folder / "directory" / "report.html").mkdir(parents=True)
    (folder / "link").mkdir()
    (folder / "link" / "report.html").symlink_to(outside / "secret.txt")
    (folder / "gone").mkdir()
    (folder / "gone" / "report.html").symlink_to(outside / "nothing")
    (folder / "out").symlink_to(outside)
    return folder


@pytest.fixture(scope="module")
def browsed(digits, folder):
    with serving({"digits": digits}, reports=Reports(folder)) as address:
        yield address


def as_sent(address: str, path: str) -> tuple[int, bytes]:
    """Ask for a path as it stands: httpx and browsers would resolve it before."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.putrequest("GET", path)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read()


def test_every_report_in_the_folder_is_listed_and_can_be_read(browsed, folder):
    assert '<a href="reports/">' in httpx.get(browsed).text
    listed = httpx.get(f"{browsed}/reports/")
    links = re.findall('href="([^"]+)"', listed.text)
    assert links == [quote(f"{name}/report.html") for name in ("mine/test", "à b #1?/50%")]
    for link, name in zip(links, ("mine/test", "à b #1?/50%"), strict=True):
        report = httpx.get(f"{browsed}/reports/{link}")
        assert report.text == f"<p>report of {name}" and report.headers["content-type"].startswith("text/html")
        assert report.headers["content-security-policy"].startswith("default-src 'none'")
    assert httpx.get(f"{browsed}/reports", follow_redirects=True).text == listed.text


def test_reports_come_and_go(browsed, folder):
    new = folder / "mine" / "report.html"
    new.write_text("later")
    assert httpx.get(f"{browsed}/reports/mine/report.html").text == "later"
    new.unlink()
    done = httpx.get(f"{browsed}/reports/mine/report.html")
    assert done.status_code == 404 and "/reports/ lists them" in done.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        *("mine", "mine/", "mine/test", "mine/test/", "mine/test/report.html/", "directory/report.html"),
        *("mine/predictions.jsonl", "mine/test/REPORT.HTML", "mine/Report.html", "MINE/test/report.html"),
        *("link/report.html", "gone/report.html", "out/report.html", "out/runs/mine/test/report.html"),
        *("../report.html", "../secret.txt", "mine/../../report.html", "mine/../mine/test/report.html"),
        *("./mine/test/report.html", "mine//test/report.html", "/mine/test/report.html", "/etc/passwd"),
        *("%2e%2e/report.html", "..%2freport.html", "%2e%2e%2fsecret.txt", "%252e%252e/secret.txt", "%2fetc%2fpasswd"),
        *(
            "..%5creport.html",
            "%c0%ae%c0%ae/report.html",
            "%ff",
            "mine/test/report.html%00",
            "%00",
            "~root/report.html",
        ),
        *("mine/predictions.jsonl%00report.html", "file:///etc/passwd", "mine/test/report.html;x"),
    ],
)
def test_nothing_but_reports_in_the_folder_is_read(browsed, path):
    status, content = as_sent(browsed, f"/reports/{path}")
    assert status == 404 and SECRET.encode() not in content and b"root:" not in content


def test_reports_are_not_written(browsed):
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert httpx.request(method, f"{browsed}/reports/mine/test/report.html").status_code == 405


def test_without_the_setting_there_are_no_reports(address):
    assert httpx.get(f"{address}/reports/").status_code == 404 and "reports/" not in httpx.get(address).text


@pytest.mark.parametrize("make", ["empty", "folder", "other", "link"])
def test_a_folder_without_a_report_says_that_there_is_none_yet_and_lists_the_first(tmp_path, make):
    place = tmp_path / "evaluation"
    place.mkdir()
    if make == "other":
        (place / "predictions.jsonl").touch()
    if make == "folder":
        (place / "report.html").mkdir(parents=True)
    if make == "link":
        (tmp_path / "secret").write_text(SECRET)
        (place / "report.html").symlink_to(tmp_path / "secret")
    reports = Reports(place)
    listed = reports.page("").body.decode()
    assert "no report yet" in listed and "nemo-speechllm report " in listed and "<li>" not in listed
    (place / "test").mkdir()
    (place / "test" / "report.html").touch()
    listed = reports.page("").body.decode()
    assert "no report yet" not in listed and '<li><a href="test/report.html">' in listed


@pytest.mark.parametrize("make", ["nothing", "file"])
def test_a_folder_of_reports_that_is_none_is_refused(tmp_path, make):
    """Where it is no folder at all; one in which there is none yet is served."""
    place = tmp_path / "evaluation"
    if make == "file":
        place.write_text("a report")
    with pytest.raises(NotADirectoryError, match=f"reports={place}: there is no such folder; .*{Path.cwd()}"):
        Reports(place)


def test_a_name_that_is_no_unicode_is_listed_and_read(tmp_path):
    place = tmp_path / "runs" / "caf\udce9"
    place.mkdir(parents=True)
    (place / "report.html").write_text("x")
    reports = Reports(tmp_path)
    assert "runs/caf%EF%BF%BD/report.html" in reports.page("").body.decode()
    assert reports.page("runs/caf\ufffd/report.html").body == b"x" and reports.page("nothing") is None


def test_a_browser_gives_the_key_as_a_password(digits, folder):
    with serving({"digits": digits}, api_key="schlüssel", reports=Reports(folder)) as address:
        report = f"{address}/reports/mine/test/report.html"
        for path in (report, f"{address}/reports/", f"{address}/reports/nothing"):
            refused = httpx.get(path)
            assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic ")
        for wrong in ("schlussel", "", "x:schlüssel"):
            assert httpx.get(report, auth=httpx.BasicAuth("", wrong)).status_code == 401
        for given in ("Basic !", "Basic", "Basic c2NobMO8c3NlbA=="):  # no base64, nothing, no password
            assert httpx.get(report, headers={"Authorization": given}).status_code == 401
        assert httpx.get(report, auth=httpx.BasicAuth("me", "schlüssel")).text == "<p>report of mine/test"
        basic = base64.b64encode("me:schlüssel".encode()).decode()
        assert httpx.get(f"{address}/v1/models", headers={"Authorization": f"Basic {basic}"}).status_code == 401
