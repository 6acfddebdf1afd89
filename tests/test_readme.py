"""Every command in README.md and docs/ is run: here, in a test on real brokers, or by a workflow. Every link leads
somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages_of_docs import PAGES, README, ROOT, TUTORIAL, commands, headings, links

HERE = (
    "mqtest doctor",
    "mqtest list",
    "mqtest schema > scenario.schema.json",
    "mqtest calibrate --rate 1000",
    "mqtest run self-test",
    "mqtest run durability --dry-run",
    "mqtest run durability --only 'kafka/*' --dry-run",
    "mqtest run durability --only 'rabbitmq/*' --dry-run",
    "mqtest run durability --only 'rocketmq/*' --dry-run",
    "mqtest check results/RUN",
    "mqtest report results/RUN",
    "mqtest select results/RUN --need 'lost == 0 under power-cut all' --need ordered --need replay",
    "mqtest select --presets",
    "mqtest clean --keep 5",
)
"""in this order; RUN is the run that `self-test` left; run by test_self_test.py. Those of the tutorial are run by
test_tutorial.py, in its order"""
_TESTS, _CI, _NIGHTLY = "tests/test_commands_docker.py", ".github/workflows/ci.yml", ".github/workflows/nightly.yml"
ELSEWHERE = {
    "mqtest doctor --power-cut": (_TESTS, "# mqtest doctor --power-cut"),
    "mqtest run first-look": (_TESTS, "# mqtest run first-look"),
    "mqtest run live": (_TESTS, "# mqtest run live"),
    "mqtest compare results/OLD results/NEW": ("tests/test_compare.py", "# mqtest compare results/OLD results/NEW"),
    "mqtest up kafka/acks-all": (_TESTS, "# mqtest up kafka/acks-all"),
    "mqtest run durability --ray HOST:6379": ("tests/test_ray.py", "# mqtest run durability --ray HOST:6379"),
    "mqtest attach kafka --bootstrap HOST:PORT": (_TESTS, "# mqtest attach kafka --bootstrap"),
    "mqtest bench": ("tests/test_bench_docker.py", "# mqtest bench"),
    "mqtest down": (_TESTS, "# mqtest down"),
    "mqtest run durability": (_NIGHTLY, "scenario: durability"),
    "mqtest run chaos": (_NIGHTLY, "scenario: chaos"),
    "make demo": (_CI, "run: make demo"),
    "make test": (".ci/run", "make test"),
}
"""command → the file that runs it, and the words there"""


def test_no_command_is_left_out() -> None:
    assert {command for page in PAGES if page != TUTORIAL for command in commands(page)} == {*HERE, *ELSEWHERE}


def test_every_scenario_that_ships_stands_in_the_table_with_its_cells() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \| .+ \| (\d+) \|$", README.read_text(encoding="utf-8"), re.M)
    heads = {path.stem: path.read_text().split()[1] for path in (ROOT / "scenarios").glob("*.toml")}
    assert dict(table) == heads


@pytest.mark.parametrize(("file", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_the_others_stand_where_they_are_said_to(file: str, words: str) -> None:
    assert words in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link
