"""Axes: what a scenario varies and what a command line sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mqtest import axes, toml
from mqtest.errors import UsageError
from mqtest.model import Duplicates, Order, Value
from mqtest.plan import plan
from mqtest.scenario import Scenario, assigned, load

TEXT = """
title = "t"
question = "q?"
profiles = ["kafka/acks-all", "kafka/acks-1"]
faults = ["none", "mine"]
[schedule.mine]
steps = [{ do = "kill:leader" }]
repeat = 2
"""


def scenario(folder: Path, more: str = "", asked: dict[str, Value] | None = None) -> Scenario:
    path = folder / "x.toml"
    path.write_text(TEXT + more)
    return load(path, asked)


def test_every_combination() -> None:
    assert axes.combinations({}, Path("x")) == [{}]
    assert axes.combinations({"a": [1, 2], "b": ["c"]}, Path("x")) == [{"a": 1, "b": "c"}, {"a": 2, "b": "c"}]


@pytest.mark.parametrize("values", [[], [1, 1], ["1", 1]])
def test_a_list_of_different_values_is_wanted(values: list[Value]) -> None:
    with pytest.raises(UsageError, match=r"x: vary\.a: a list of different values"):
        axes.combinations({"a": values}, Path("x"))


def test_settings_and_workload_vary_together(tmp_path: Path) -> None:
    found = scenario(
        tmp_path, '[vary]\n"producer.acks" = ["0", "1"]\n"workload.size_bytes" = [100, 1000]\nnodes = [1, 3]\n'
    )
    cells = plan(found).cells
    assert len(cells) == 2 * 2 * 2 * len(found.profiles) * len(found.faults)
    seen = {(c.profile.settings["producer"]["acks"], c.workload.size_bytes, c.nodes) for c in cells}
    assert seen == {(a, s, n) for a in ("0", "1") for s in (100, 1000) for n in (1, 3)}
    assert len({c.id for c in cells}) == len({c.seed for c in cells}) == len(cells)
    assert all(c.varied["workload.size_bytes"] == c.workload.size_bytes for c in cells)


def test_a_profile_with_other_settings_promises_nothing_under_a_fault(tmp_path: Path) -> None:
    profile = scenario(tmp_path, '[vary]\n"broker.log.flush.interval.messages" = [5]\n').profiles[0]
    assert profile.name == "acks-all[broker.log.flush.interval.messages=5]"
    assert profile.settings["broker"]["log.flush.interval.messages"] == 5
    assert profile.promise.survives == ("none",)
    assert (profile.promise.duplicates, profile.promise.order) == (Duplicates.ANY, Order.NONE)


def test_a_workload_that_varies_leaves_the_promise(tmp_path: Path) -> None:
    profile = scenario(tmp_path, '[vary]\n"workload.size_bytes" = [100]\n').profiles[0]
    assert profile.name == "acks-all"
    assert "kill:*" in profile.promise.survives


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[vary]\n"workload.sise_bytes" = [100]\n', "key 'workload.sise_bytes' is not known"),
        ('[vary]\n"workload.size_bytes" = [1]\n', "workload.size_bytes: must be 64"),
        ('[vary]\n"workload.size_bytes" = []\n', "vary.workload.size_bytes: a list"),
        ("[vary]\nnodes = [0]\n", "nodes: must be at least 1"),
        ('[vary]\n"title.x" = [1]\n', "title.x: title is no table"),
        ("[settings.kill]\nx = 1\n", "settings.kill: key 'x' is not known"),
        ("[settings.kil]\nx = 1\n", "settings.kil: fault 'kil' is not known"),
    ],
)
def test_rejections(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        scenario(tmp_path, more)
    assert str(caught.value).startswith(f"{tmp_path / 'x.toml'}: ")
    assert message in str(caught.value)


def test_a_setting_belongs_to_one_broker(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(TEXT.replace("kafka/acks-1", "rabbitmq/quorum") + '[vary]\n"producer.acks" = ["0"]\n')
    with pytest.raises(UsageError, match=r"vary\.producer\.acks: .*kafka, rabbitmq"):
        load(path)


def test_what_is_set_stands_in_place_of_the_files(tmp_path: Path) -> None:
    found = scenario(
        tmp_path,
        asked={"workload.rate_per_s": 7, "schedule.mine.repeat": 3, "producer.linger.ms": 9, "repeats": 2},
    )
    assert found.arms[0].workload.rate_per_s == 7
    assert len(found.faults[1].groups) == 3
    assert found.profiles[0].settings["producer"]["linger.ms"] == 9
    assert found.repeats == 2
    assert found.asked["repeats"] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes=1", ("nodes", 1)),
        ("fs=xfs", ("fs", "xfs")),
        ("producer.acks='0'", ("producer.acks", "0")),
        ("workload.rate_per_s=2.5", ("workload.rate_per_s", 2.5)),
        ("hasty=true", ("hasty", True)),
        ("faults=['none']", ("faults", ["none"])),
        ("version.kafka=4.10", ("version.kafka", "4.10")),
        ("version.kafka=4", ("version.kafka", "4")),
        ("version.kafka='4.10'", ("version.kafka", "4.10")),
        ("version.kafka=4.3.1", ("version.kafka", "4.3.1")),
        ("title=true", ("title", "true")),
        ("title=2026-01-01", ("title", "2026-01-01")),
        ("workload.consume=1", ("workload.consume", "1")),
        ("broker.some.version=4.10", ("broker.some.version", 4.1)),
        ("settings.link.direction=1", ("settings.link.direction", 1)),
        ("search.at_s=4", ("search.at_s", 4)),
        ("nobody.knows=4", ("nobody.knows", 4)),
        ("title.x=4", ("title.x", 4)),
    ],
)
def test_a_value_of_the_command_line(text: str, expected: tuple[str, Any]) -> None:
    key, value = expected
    found = assigned([text])
    assert found == {key: value}
    assert type(found[key]) is type(value)


@pytest.mark.parametrize("text", ["nodes", "=1"])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(UsageError, match=r"--set .*KEY=VALUE is wanted"):
        assigned([text])


def test_a_version_that_is_set_is_the_one_that_runs(tmp_path: Path) -> None:
    found = scenario(tmp_path, asked=assigned(["version.kafka=4.10"]))
    assert (found.versions["kafka"], found.asked) == ("4.10", {"version.kafka": "4.10"})
    with pytest.raises(UsageError, match=r"x\.toml: version\S* expected str, got float"):
        scenario(tmp_path, "[version]\nkafka = 4.3\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("xfs", "xfs"),
        ("4.3.1", "4.3.1"),
        ("4.10", '"4.10"'),
        ("true", '"true"'),
        ("'quoted'", "\"'quoted'\""),
        ('a "b" \\ ü', 'a "b" \\ ü'),
        ("two\nlines", "two\nlines"),
        ("1\n[x]", '"1\\n[x]"'),
        ("1 # no remark", '"1 # no remark"'),
        (True, "true"),
        (7, "7"),
        (2.5, "2.5"),
        (["none", "it's", 1, False], '["none", "it\'s", 1, false]'),
        ({"a b": {"steps": [{"do": "kill:one"}]}}, '{"a b" = {"steps" = [{"do" = "kill:one"}]}}'),
    ],
)
def test_what_is_written_of_a_value_reads_as_that_value(value: Any, text: str) -> None:
    assert toml.text_of(value) == text
    read = toml.value_of(text)
    assert (read, type(read)) == (value, type(value))
