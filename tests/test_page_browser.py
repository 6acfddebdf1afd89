"""report.html in a real browser: no error on its console, and not one request. Where Chromium is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from mqtest.report.page import page
from tests.test_page import CURVES, EVERY
from tests.test_report import collected

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no Chromium here: none of {', '.join(NAMES)} is on the path")


class Seen(NamedTuple):
    dom: str
    console: list[str]
    requests: list[str]
    """addresses that the page asked for, but for its own file"""


def opened(path: Path, fragment: str = "") -> Seen:
    """The page after it was loaded."""
    log = path.with_suffix(".netlog")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
        f"--user-data-dir={path.parent / 'profile'}", f"--log-net-log={log}", "--window-size=390,844",
        "--virtual-time-budget=2000", "--dump-dom", f"{path.as_uri()}{fragment}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    return Seen(done.stdout, re.findall(r"CONSOLE.*", done.stderr), requests(log))


def requests(log: Path) -> list[str]:
    """What a page asked for; the browser's own errands have no origin."""
    text = log.read_text(encoding="utf-8")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]  # it ended before the log was closed
    started = [event.get("params", {}) for event in events]
    return [p["url"] for p in started if "url" in p and p.get("initiator", "not an origin") != "not an origin"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(collected(*EVERY), {cell.folder: CURVES for cell in EVERY}, "0"), encoding="utf-8")
    return path


def test_the_page_has_no_error_and_asks_for_nothing(report: Path) -> None:
    seen = opened(report)
    assert (seen.console, seen.requests) == ([], [])
    assert seen.dom.count("<svg") > len(EVERY)


def test_a_link_to_a_cell_opens_it(report: Path) -> None:
    def is_open(dom: str, cell: str) -> bool:
        found = re.search(rf'<details class="cell" id="{cell}"([^>]*)>', dom)
        assert found is not None
        return "open" in found[1]

    assert not is_open(opened(report).dom, "001")
    assert is_open(opened(report, "#001").dom, "001")


def test_an_error_and_a_request_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png"><script>nothing()</script>', encoding="utf-8")
    seen = opened(path)
    assert any("nothing is not defined" in line for line in seen.console)
    assert "http://127.0.0.1:9/x.png" in seen.requests


def test_the_page_forbids_what_it_does_not_need(report: Path, tmp_path: Path) -> None:
    path = tmp_path / "worse.html"
    text = report.read_text(encoding="utf-8")
    path.write_text(text.replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">'), encoding="utf-8")
    seen = opened(path)
    assert seen.requests == []
    assert any("Content Security Policy" in line for line in seen.console)
