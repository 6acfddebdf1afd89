"""Scenarios: every rejection is one line with file, key and what is allowed; the shipped ones load."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mqtest import paths
from mqtest.errors import UsageError
from mqtest.model import NO_FAULT, Consume, Fault, Output, Replay, Search, Step
from mqtest.plan import expected_s, plan
from mqtest.profile import find_profile
from mqtest.replay_table import promised
from mqtest.scenario import load, locate

GOOD = """
title = "t"
question = "q?"
profiles = ["memory/log-safe"]
faults = ["none", "kill:leader"]
nodes = 1
[workload]
rate_per_s = 100
[phases]
steady_s = 1
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "x.toml"
    path.write_text(text)
    return path


def test_a_good_one(tmp_path: Path) -> None:
    scenario = load(write(tmp_path, GOOD))
    assert [p.path for p in scenario.profiles] == ["memory/log-safe"]
    assert scenario.faults == (NO_FAULT, Fault("kill:leader", ((Step("kill", "leader"),),)))
    assert scenario.arms[0].workload.rate_per_s == 100
    assert scenario.arms[0].workload.consume is Consume.AFTER_HEAL
    assert scenario.versions == {"memory": "embedded"}


def test_closed_loop_has_no_rate(tmp_path: Path) -> None:
    assert load(write(tmp_path, "closed_loop = true" + GOOD)).arms[0].workload.rate_per_s is None


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('title = "t"', "", "title is missing"),
        ('title = "t"', "titel = 1", "key 'titel' is not known (did you mean 'title'?)"),
        ("rate_per_s = 100", "rate_per_s = 0", "workload.rate_per_s: must be above 0"),
        ("rate_per_s = 100", "rate_per_s = -5", "workload.rate_per_s: must be above 0"),
        ("rate_per_s = 100", 'rate_per_s = "fast"', "workload.rate_per_s: expected"),
        ("rate_per_s = 100", "rate_s = 100", "key 'workload.rate_s' is not known"),
        ("rate_per_s = 100", "transformers = -1", "workload.transformers: must be at least 0"),
        ("rate_per_s = 100", "process_ms = -1", "workload.process_ms: must be 0 to 1000"),
        ("rate_per_s = 100", "size_bytes = 10", "workload.size_bytes: must be 64 to 1048576"),
        ("rate_per_s = 100", 'consume = "never"', "workload.consume"),
        ('"memory/log-safe"', '"memory/log-saef"', "profile 'memory/log-saef' is not known (did you mean"),
        ('"memory/log-safe"', '"kafak/x"', "broker 'kafak' is not known (did you mean 'kafka'?)"),
        ('["memory/log-safe"]', "[]", "profiles: must not be empty"),
        ('"kill:leader"', '"kil:leader"', "fault 'kil' is not known (did you mean 'kill'?)"),
        ('"kill:leader"', '"kill:leadr"', "fault 'kill:leadr' cannot have the target 'leadr'; allowed: kill:leader"),
        ('"kill:leader"', '"kill"', "cannot have the target ''"),
        ('"kill:leader"', '"none:leader"', "cannot have the target 'leader'; allowed: none"),
        ('"kill:leader"', '"partition:leader"', "memory cannot have 'partition'"),
        ('"kill:leader"', '"none"', "faults: none stands twice"),
        ("nodes = 1", "nodes = 0", "nodes: must be at least 1"),
        ("nodes = 1", "latency = true\nclosed_loop = true", "latency: a closed loop has no due times"),
        ("nodes = 1", "max_cells = 0", "max_cells: must be at least 1"),
        ("nodes = 1", 'must_lose = ["kill:all"]', "must_lose: kill:all is not among the scenario's faults"),
        ("nodes = 1", 'fs = "ntfs"', "fs: filesystem 'ntfs' is not known; allowed: ext4, xfs"),
        ("nodes = 1", 'version = { kafka = "4" }', "version.kafka: no profile of that broker"),
        ("steady_s = 1", "steady_s = 0", "phases.steady_s: must be above 0"),
        ("steady_s = 1", "hold_s = -1", "phases.hold_s: must not be negative"),
        ("steady_s = 1", "steady_s = 1\nsync_before_fault_s = 2", "phases.sync_before_fault_s"),
        ("nodes = 1", "nodes = = 1", "line 6"),
    ],
)
def test_rejections_name_file_and_key(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in GOOD
    path = write(tmp_path, GOOD.replace(before, after))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipeline_is_for_logs(tmp_path: Path) -> None:
    text = GOOD.replace("rate_per_s = 100", "rate_per_s = 100\ntransformers = 1")
    assert load(write(tmp_path, text)).arms[0].workload.transformers == 1
    with pytest.raises(
        UsageError, match="memory/queue-safe is a queue, whose inputs nobody can read again; allowed: 0"
    ):
        load(write(tmp_path, text.replace("log-safe", "queue-safe")))


REPLAY = """
consumers = 0
[replay]
history_s = 5
history_per_s = 400
"""


def test_a_replay_has_two_jobs_in_place_of_consumers(tmp_path: Path) -> None:
    text = GOOD.replace("rate_per_s = 100", "rate_per_s = 100" + REPLAY)
    arm = load(write(tmp_path, text)).arms[0]
    assert arm.replay == Replay(history_s=5, history_per_s=400)
    assert (arm.workload.transformers, arm.workload.consumers) == (2, 0)
    cell = plan(load(write(tmp_path, text))).cells[0]
    assert cell.replay == arm.replay
    assert expected_s(cell) > expected_s(replace(cell, replay=None)) + 5, "the history takes its time"
    assert load(write(tmp_path, GOOD)).arms[0].replay is None


@pytest.mark.parametrize(
    ("path", "output", "expected"),
    [
        ("memory/log-safe", Output.AT_LEAST_ONCE, Output.AT_LEAST_ONCE),
        ("memory/log-safe", Output.EXACTLY_ONCE, Output.EXACTLY_ONCE),
        ("memory/log-duplicating", Output.EXACTLY_ONCE, Output.AT_LEAST_ONCE),
        ("memory/queue-safe", Output.EXACTLY_ONCE, Output.NONE),
        ("kafka/transactional", Output.AT_LEAST_ONCE, Output.EXACTLY_ONCE),
        ("kafka/acks-all-auto-commit", Output.EXACTLY_ONCE, Output.NONE),
    ],
)
def test_what_jobs_make_of_a_profiles_promise(path: str, output: Output, expected: Output) -> None:
    assert promised(find_profile(path), Replay(output=output)).output is expected
    assert promised(find_profile(path), None) == find_profile(path).promise


FLINK = """
title = "x"
question = "x?"
profiles = ["kafka/acks-all-fsync-committed"]
faults = ["none", "kill:jobmanager", "kill:taskmanager", "power-cut:all"]
[workload]
consumers = 0
[replay]
runs_on = "flink"
output = "none"
"""


def test_flink_runs_the_jobs_and_has_parts_to_kill(tmp_path: Path) -> None:
    scenario = load(write(tmp_path, FLINK))
    (replay,) = [arm.replay for arm in scenario.arms]
    assert replay == Replay(runs_on="flink", output=Output.NONE)
    assert [str(fault) for fault in scenario.faults][1:3] == ["kill:jobmanager", "kill:taskmanager"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("kafka/acks-all-fsync-committed", "rabbitmq/stream", "rabbitmq/stream: Flink's jobs are for kafka"),
        ('runs_on = "flink"\noutput = "none"', "", "only where replay.runs_on is 'flink' is there a jobmanager"),
        ("kill:jobmanager", "kill:transformers", "Flink runs the jobs; allowed: jobmanager, taskmanager"),
        ("kill:jobmanager", "pause:jobmanager", "cannot have the target 'jobmanager'"),
        ('"flink"', '"spark"', "replay.runs_on"),
        ('runs_on = "flink"', "", "replay.output: allowed: at-least-once, exactly-once"),
    ],
)
def test_what_flink_cannot_do_is_refused(tmp_path: Path, before: str, after: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path, FLINK.replace(before, after)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("path", "output", "expected"),
    [
        ("kafka/acks-all-fsync-committed", Output.EXACTLY_ONCE, Output.EXACTLY_ONCE),
        ("kafka/acks-all-fsync-committed", Output.AT_LEAST_ONCE, Output.AT_LEAST_ONCE),
        ("kafka/acks-all-fsync-committed", Output.NONE, Output.NONE),
        ("kafka/acks-all-fsync", Output.EXACTLY_ONCE, Output.AT_LEAST_ONCE),
    ],
)
def test_flinks_jobs_promise_what_their_guarantee_says(path: str, output: Output, expected: Output) -> None:
    assert promised(find_profile(path), Replay(runs_on="flink", output=output)).output is expected


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("history_s = 5", "history_s = 0", "replay.history_s: must be above 0"),
        ("history_per_s = 400", "history_per_s = 0", "replay.history_per_s: must be above 0"),
        ("history_s = 5", "keys = 0", "replay.keys: must be 1 to 65536"),
        ("history_s = 5", "window_s = 0", "replay.window_s: must be above 0"),
        ("history_s = 5", "fault_at = 1", "replay.fault_at: must be 0 to less than 1"),
        ("history_s = 5", "beside_s = -1", "replay.beside_s: must not be negative"),
        ("history_s = 5", 'output = "none"', "replay.output: allowed: at-least-once, exactly-once"),
        ("history_s = 5", 'output = "twice"', "replay.output"),
        ("consumers = 0", "consumers = 1", "a replay has jobs in their place; allowed: 0"),
        ("consumers = 0", "consumers = 0\ntransformers = 1", "a replay has jobs in their place; allowed: 0"),
        ('title = "t"', 'title = "t"\nclosed_loop = true', "replay: a message needs the time at which it is due"),
    ],
)
def test_what_a_replay_refuses(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = GOOD.replace("rate_per_s = 100", "rate_per_s = 100" + REPLAY)
    assert before in text
    with pytest.raises(UsageError, match=re.escape(message)):
        load(write(tmp_path, text.replace(before, after)))


SEARCH = """
[search]
start_per_s = 100
most_per_s = 1000
"""


def test_a_search_is_for_the_cells_without_a_fault(tmp_path: Path) -> None:
    scenario = load(write(tmp_path, GOOD + SEARCH))
    cells = {str(cell.fault): cell for cell in plan(scenario).cells}
    assert cells["none"].search == Search(start_per_s=100, most_per_s=1000)
    assert cells["none"].workload.rate_per_s == 100, "from the warm-up on"
    assert cells["kill:leader"].search is None
    assert cells["kill:leader"].workload.rate_per_s == 100
    assert load(write(tmp_path, GOOD)).arms[0].search is None
    assert load(write(tmp_path, GOOD + "[search]")).arms[0].search == Search()


def test_the_loads_of_a_search_are_phases_named_by_their_share(tmp_path: Path) -> None:
    search = load(write(tmp_path, GOOD + SEARCH + "at = [0.1, 1]")).arms[0].search
    assert search is not None
    assert search.loads == (("load-10", 0.1), ("load-100", 1.0))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("start_per_s", "strat_per_s", "key 'search.strat_per_s' is not known (did you mean 'search.start_per_s'?)"),
        ("start_per_s = 100", "start_per_s = 0", "search.start_per_s: must be above 0"),
        ("start_per_s = 100", "start_per_s = 1001", "search.most_per_s: must be at least start_per_s, 1001"),
        ("[search]", "[search]\nstep_s = 0", "search.step_s: must be above 0"),
        ("[search]", "[search]\nsettle_s = 0", "search.settle_s: must be above 0"),
        ("[search]", "[search]\nat_s = -1", "search.at_s: must be above 0"),
        ("[search]", "[search]\ntrials = 0", "search.trials: must be at least 1"),
        ("[search]", "[search]\ntrials = 1.5", "search.trials: expected"),
        ("[search]", "[search]\nat = [0.5, 1.1]", "search.at: different shares from 0.01 to 1"),
        ("[search]", "[search]\nat = [0.5, 0]", "search.at: different shares from 0.01 to 1"),
        ("[search]", "[search]\nat = [0.5, 0.501]", "search.at: different shares from 0.01 to 1"),
        ('"none", "kill:leader"', '"kill:leader"', "search: it is for cells without a fault, and there are none"),
        ("nodes = 1", 'nodes = 1\nskip = ["*/none"]', "search: it is for cells without a fault, and there are none"),
        ("nodes = 1", "nodes = 1\nclosed_loop = true", "search: it asks for rates, and closed_loop = true has none"),
        ("log-safe", "log-blind", "search: memory/log-blind has no acknowledgements to go by"),
    ],
)
def test_rejections_of_a_search(tmp_path: Path, before: str, after: str, message: str) -> None:
    text = GOOD + SEARCH
    assert before in text
    path = write(tmp_path, text.replace(before, after))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["schedule.s.repaet", "schedule.s.steps[1].fro_s"])
def test_a_misspelt_key_of_a_schedule_is_named(tmp_path: Path, key: str) -> None:
    table, _, name = key.rpartition(".")
    steps = 'steps = [{ do = "kill:one" }, { do = "kill:one", SECOND = 3 }]'
    steps = steps.replace("SECOND", name) if "steps" in table else f"{steps.replace('SECOND', 'at_s')}\n{name} = 3"
    path = write(tmp_path, GOOD.replace('"kill:leader"', '"s"') + f"[schedule.s]\n{steps}")
    with pytest.raises(UsageError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: key '{key}' is not known (did you mean ")


def test_a_missing_file_lists_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"no such scenario file; shipped ones: .*first-look"):
        locate("nowhere")


def test_a_shipped_one_is_found_by_name() -> None:
    assert locate("first-look") == paths.scenarios() / "first-look.toml"


@pytest.mark.parametrize("path", sorted(paths.scenarios().glob("*.toml")), ids=lambda p: p.stem)
def test_shipped_scenarios_load_and_plan(path: Path) -> None:
    scenario = load(path)
    cells = plan(scenario).cells
    pairs = [(p, f) for p in scenario.profiles for f in scenario.faults if not scenario.skips(p, f)]
    assert len(cells) == len(pairs) * len(scenario.arms) * scenario.repeats
    head = path.read_text().splitlines()[0]
    assert head.startswith(f"# {len(cells)} cells, "), "its cells and time stand in its head"


def test_a_fault_that_a_broker_cannot_have(tmp_path: Path) -> None:
    text = (
        locate("live")
        .read_text()
        .replace('must_lose = ["power-cut:all"]', "")
        .replace("power-cut:all", "clock-jump:one")
    )
    with pytest.raises(UsageError, match="kafka cannot have 'clock-jump'; allowed: none, kill"):
        load(write(tmp_path, text))
    load(write(tmp_path, text.replace('"kafka/acks-all", ', "").replace(', "rocketmq/async-flush"', "")))
