"""Checks of the consumer group: what it passed over, what it committed, and (queue) whether the counts close.

The runner writes what the broker itself says once the consumers are done: `counts` (`when`: `drained`; `totals`:
`ready`, `unacked`, perhaps `dead_lettered`) and `committed` (`places` and `ends`: place → offset). Rules: __init__.py.
"""

from __future__ import annotations

import numpy as np

from mqtest.checks.sightings import examples, position, run_starts, seen
from mqtest.fates import AUDITED, EARLY, STATES, outcomes, there
from mqtest.history import History, counted, said_by_place
from mqtest.model import Finding, Kind, Outcome


def skipped_by_consumer(history: History) -> Finding:
    """Log: acked messages that are there, and that the group went past without any consumer having been given them.

    Groups begin at the first position. How far one came in a place: beyond the highest position that a consumer read,
    or to the committed one. A message that a pushing client still held when it ended counts: the broker was told that
    it is done with. None without receipts or acknowledgements.
    """
    if history.kind is not Kind.LOG or not history.acknowledged or not len(history.receipts):
        return Finding(check="skipped-by-consumer", count=None, numbers={"skipped_by_consumer": None})
    audit, read = history.audit, history.receipts
    reach = {int(p): int(read.offset[read.place == p].max()) + 1 for p in np.unique(read.place)}
    for place, offset in _committed(history).items():
        reach[place] = max(reach.get(place, 0), offset)
    delivered = np.zeros(len(history.fate), dtype=np.bool_)
    delivered[read.message] = True
    passed = np.zeros(len(audit), dtype=np.bool_)
    for place, end in reach.items():
        passed |= (audit.place == place) & (audit.offset < end)
    acked = history.sends.outcome[audit.message] == Outcome.ACKED
    rows = np.flatnonzero(passed & acked & ~delivered[audit.message])
    messages, first = np.unique(audit.message[rows], return_index=True)
    count = seen(history, len(messages))
    return Finding(
        check="skipped-by-consumer",
        count=count,
        numbers={"skipped_by_consumer": count},
        examples=examples(
            f"{history.name(m)} at {position(audit.place[rows[i]], audit.offset[rows[i]])}, "
            f"the group went on to {reach[int(audit.place[rows[i]])]}"
            for m, i in zip(messages, first, strict=True)
        ),
        messages=run_starts(history, messages),
    )


def committed(history: History) -> Finding:
    """Log: places where the group's committed offset lies beyond the end of the log: what comes there is skipped.

    The end is what the broker said beside it, else what the audit found. None where nothing was said.
    """
    said, ends = _committed(history), _ends(history)
    judged = {place: offset for place, offset in said.items() if place in ends}
    if history.kind is not Kind.LOG or not judged:
        return Finding(check="committed", count=None, numbers={"committed_beyond_end": None})
    beyond = {place: offset for place, offset in judged.items() if offset > ends[place]}
    return Finding(
        check="committed",
        count=len(beyond),
        numbers={"committed_beyond_end": len(beyond)},
        examples=examples(f"place {p}: committed {o}, the log ends at {ends[p]}" for p, o in beyond.items()),
    )


def conservation(history: History) -> Finding:
    """Queue: published = consumed + ready + unacked + dead-lettered, by the broker's counts when no consumer is left.

    Published: acked, or unknown and there. Consumed: given to a consumer before the counts, and not in the audit too.
    `unaccounted` is published less all the others: above 0 the broker knows less than it took, below 0 it holds
    copies, or counted what was being acknowledged just then. None without the counts or a complete audit.
    """
    event = counted(history.events)
    if history.kind is not Kind.QUEUE or event is None or history.incomplete is not None:
        return Finding(check="conservation", count=None, numbers={"unaccounted": None})
    counts = {name: int(event["totals"].get(name, 0)) for name in ("ready", "unacked", "dead_lettered")}
    published = (outcomes() == Outcome.ACKED) | (there(history.kind) & (outcomes() == Outcome.UNKNOWN))
    consumed = published & ((STATES & (EARLY | AUDITED)) == EARLY)
    total, done = history.total(published), history.total(consumed)
    unaccounted = total - done - sum(counts.values())
    return Finding(
        check="conservation",
        count=abs(unaccounted),
        numbers={"unaccounted": unaccounted, "published": total, "consumed": done, **counts},
    )


def _committed(history: History) -> dict[int, int]:
    """Place → the group's last committed offset, by the broker's word."""
    return said_by_place(history.events, "places")


def _ends(history: History) -> dict[int, int]:
    """Place → one past the last position: by the broker's word, else by the audit."""
    place, offset = history.held_place, history.held_offset
    found = {int(p): int(offset[place == p].max()) + 1 for p in np.unique(place)} if history.incomplete is None else {}
    return found | said_by_place(history.events, "ends")
