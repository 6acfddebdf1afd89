"""The check of pipelines: what transformers wrote, against what they had to read. Rules: __init__.py."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice

import numpy as np

from mqtest.checks.sightings import examples
from mqtest.history import History
from mqtest.model import Finding, Outcome
from mqtest.tables import Ints, Receipts, groups

_EACH = 10
_COLUMNS = ("output_lost", "output_doubled", "output_phantom")


def output(history: History) -> Finding:
    """Inputs of a pipeline without an output, and outputs too many.

    Each position of the log that holds an input is to become one output, whatever the producer was told of it.
    output_lost: outputs that are missing; `output_unread` of them are of inputs that no transformer was ever handed.
    output_doubled: outputs beyond those. output_phantom: outputs of messages that were refused and are not there (an
    aborted one was read), and outputs that are corrupt or of nobody's message. `output_of_lost`: outputs of messages
    that are in the log no more; somebody acted on them while they were. Readers of the output are at the isolation
    level of the profile. In a replay all this is of the old job, and of the inputs up to where it stopped. None of it
    without transformers; while an audit is incomplete, only the phantoms.
    """
    found = history.output
    if found is None:
        return Finding(check="output", count=None, numbers=dict.fromkeys(_COLUMNS))
    rows = len(history.sends.seq)
    inputs = _positions(history.audit, rows, found.reach)
    outputs = _positions(found.written, rows)
    refused = np.isin(history.sends.outcome, (Outcome.REFUSED, Outcome.RETURNED))
    aborted_read = (outputs > 0) & (inputs == 0) & refused
    phantom = int(outputs[aborted_read].sum()) + found.strange
    read = (f"{history.name(m)} was refused, and has {outputs[m]} outputs" for m in np.flatnonzero(aborted_read))
    strangers = chain(found.lines, read)
    if history.incomplete is not None or found.incomplete is not None:
        numbers = dict.fromkeys(_COLUMNS) | {"output_phantom": phantom}
        return Finding(check="output", count=None, numbers=numbers, examples=examples(strangers))
    missing = np.maximum(inputs - outputs, 0)
    doubled = np.maximum(outputs - np.maximum(inputs, 1), 0)
    doubled[aborted_read] = 0
    handed = np.zeros(rows, dtype=np.bool_)
    handed[found.handed.message] = True
    gone = (
        f"{history.name(m)}: no output" + ("" if handed[m] else ", was never read") for m in np.flatnonzero(missing)
    )
    many = (f"{history.name(m)}: {outputs[m]} outputs" for m in np.flatnonzero(doubled))
    return Finding(
        check="output",
        count=int(missing.sum() + doubled.sum()) + phantom,
        numbers={
            "output_lost": int(missing.sum()),
            "output_doubled": int(doubled.sum()),
            "output_phantom": phantom,
            "output_unread": int(missing[~handed].sum()),
            "output_of_lost": int(np.count_nonzero((outputs > 0) & (inputs == 0) & ~refused)),
        },
        examples=examples(chain(strangers, islice(gone, _EACH), many)),
    )


def _positions(receipts: Receipts, rows: int, reach: Mapping[int, int] | None = None) -> Ints:
    """At how many positions of the log each message was seen, up to these, where there are any; a position that was
    read twice is one."""
    keys = (receipts.message, receipts.place, receipts.offset)
    order, new = groups(*keys, by=3)
    seen = order[new]
    if reach is not None:
        last = np.array([reach.get(place, -1) for place in receipts.place[seen].tolist()], dtype=np.int64)
        seen = seen[receipts.offset[seen] <= last]
    return np.bincount(receipts.message[seen], minlength=rows)
