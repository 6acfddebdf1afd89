"""The check of a dashboard's table: what it answers, against what the ledger of sends says."""

from __future__ import annotations

from mqtest.checks.amounts import difference, lines_of, read, totals_of
from mqtest.checks.replay import inputs
from mqtest.checks.sightings import examples
from mqtest.history import History
from mqtest.jobs import NEW
from mqtest.model import Finding

_COLUMNS = ("table_lost", "table_doubled", "table_wrong")


def dashboard(history: History) -> Finding:
    """Amounts that a dashboard would show too low, or too high, from a table that the new job's output was fed to.

    The table has a row for each output, with the amount of its message; the dashboard asks it for count and sum of each
    place, key and time window. So an output that is there twice counts twice, where the job's own totals (check
    `amounts`) may be right. table_lost: what the sums that are too low lack, table_doubled: what those that are too
    high have beyond, both in hundredths. table_wrong: rows of the answer with a wrong count or sum. None without such a
    table, and while an audit is incomplete.
    """
    jobs = history.jobs
    if jobs is None or NEW not in jobs.tables or history.incomplete is not None or jobs.incomplete[NEW] is not None:
        return Finding(check="dashboard", count=None, numbers=dict.fromkeys(_COLUMNS))
    due, found = totals_of(history, jobs, inputs(history, jobs)), read(jobs.tables[NEW])
    wrong, lost, doubled = difference(due, found)
    return Finding(
        check="dashboard",
        count=len(wrong),
        numbers=dict(zip(_COLUMNS, (lost, doubled, len(wrong)), strict=True)),
        examples=examples(lines_of(wrong, due, found)),
    )
