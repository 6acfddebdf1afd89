"""Deliveries, read out of what a connection received before pika decodes it: a fifth of the CPU of pika's own way.

Rules:
- Only whole messages of basic.deliver are taken out (AMQP 0-9-1, 4.2.3 to 4.2.6: a method frame, a header frame, body
  frames, of one channel, with no other frame of that channel between). Every other frame goes to pika as it came, in
  its place among them, so whoever waits for an answer of the broker still sees it after what was delivered before it.
- What is taken out counts as traffic for the heartbeat, which looks at `bytes_received`.
- Messages that follow each other and are the same but for their tags, positions and bodies are taken together, as
  arrays: none of them costs a Python object.
- A frame without its end mark is InvalidFrameError, which ends the connection as pika's own would.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any, Final

import numpy as np
from pika import spec
from pika.exceptions import InvalidFrameError

from mqtest.bodies import Bodies, Ints

RECEIVE_BYTES: Final = 1 << 18
"""at most, at a time; pika takes 4,096"""

Deliver = Callable[[bytes, int, bool, bytes, bytes], None]
"""deliver(consumer tag, delivery tag, redelivered, header frame without its class, body)"""

DeliverAlike = Callable[[bytes, Ints, Ints | None, Bodies], None]
"""deliver(consumer tag, delivery tags, positions in the stream or None, bodies); none of them redelivered"""

LEAST_ALIKE: Final = 24
"""fewer than so many cost less one by one"""
_HOLD_OFF: Final = 24
"""after too few were alike, so many are taken one by one"""
_LOOK: Final = 64
"""so many are compared at first, then twice as many each time"""

_FRAME: Final = struct.Struct(">BHL")
_HEADER: Final = struct.Struct(">BHLHHQ")
_TAG: Final = struct.Struct(">QB")
_DELIVER: Final = struct.pack(">HH", 60, 60)
_FRAME_END: Final = 0xCE
_OVERHEAD: Final = _FRAME.size + 1
_OFFSET: Final = b"\x0fx-stream-offsetl"
_INT64: Final = struct.Struct(">q")


def take_deliveries(connection: Any, deliver: Deliver, deliver_alike: DeliverAlike) -> None:
    """From now on each message that an open connection of pika's receives goes to one of these two."""
    connection._transport._MAX_RECV_BYTES = RECEIVE_BYTES
    connection._on_data_available = _Receiver(connection, deliver, deliver_alike).received


class _Receiver:
    def __init__(self, connection: Any, deliver: Deliver, deliver_alike: DeliverAlike) -> None:
        self._connection = connection
        self._pass_on: Callable[[bytes], None] = connection._on_data_available
        self._deliver = deliver
        self._deliver_alike = deliver_alike
        self._hold_off = 0
        self._rest = bytes(connection._frame_buffer)
        connection._frame_buffer = type(connection._frame_buffer)()

    def received(self, data: bytes) -> None:
        """What the socket gave."""
        buffer = self._rest + data
        at, taken = 0, 0
        while (end := _whole(buffer, at)) is not None:
            if buffer[at] == spec.FRAME_METHOD and buffer.startswith(_DELIVER, at + _FRAME.size):
                content = self._content(buffer, at, end)
                if content is None:
                    break
                taken += content - at
                end = content
            else:
                self._pass_on(buffer[at:end])
            at = end
        self._connection.bytes_received += taken
        self._rest = buffer[at:]

    def _content(self, buffer: bytes, at: int, header: int) -> int | None:
        """Hand one message on, whose method frame begins at `at` and its header frame at `header`; where the next frame
        begins, or None while some of it is missing."""
        if (first := _whole(buffer, header)) is None:
            return None
        size = _HEADER.unpack_from(buffer, header)[5]
        bodies, left, end = [], size, first
        while left > 0:
            begin = end
            following = _whole(buffer, begin)
            if following is None:
                return None
            end = following
            bodies.append(buffer[begin + _FRAME.size : end - 1])
            left -= end - begin - _OVERHEAD
        if self._hold_off:
            self._hold_off -= 1
        elif end == first + _OVERHEAD + size:
            if alike := _alike(buffer, at, header, end, size):
                count, tags, offsets, values = alike
                self._deliver_alike(buffer[at + 12 : at + 12 + buffer[at + 11]], tags, offsets, values)
                return at + count * (end - at)
            self._hold_off = _HOLD_OFF
        name_end = at + 12 + buffer[at + 11]
        tag, redelivered = _TAG.unpack_from(buffer, name_end)
        body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        name, properties = buffer[at + 12 : name_end], buffer[header + _FRAME.size + 2 : first - 1]
        self._deliver(name, tag, bool(redelivered & 1), properties, body)
        return end


def _alike(buffer: bytes, at: int, header: int, end: int, size: int) -> tuple[int, Ints, Ints | None, Bodies] | None:
    """How many messages, from the one from `at` to `end` on, differ only in tag, position and body; and these."""
    length = end - at
    most = (len(buffer) - at) // length
    tag_at = 12 + buffer[at + 11]
    if most < LEAST_ALIKE or buffer[at + tag_at + 8] & 1:
        return None
    body_at = length - size - 1
    spots = [tag_at]
    if (found := buffer.find(_OFFSET, header, at + body_at)) >= 0:
        if buffer.find(_OFFSET, found + 1, at + body_at) >= 0:
            return None
        spots.append(found + len(_OFFSET) - at)
    rows = np.frombuffer(buffer, dtype=np.uint8, count=most * length, offset=at).reshape(most, length)
    count = _same(rows, [*((spot, spot + 8) for spot in spots), (body_at, body_at + size)])
    if count < LEAST_ALIKE:
        return None
    numbers: list[Ints] = [
        np.ascontiguousarray(rows[:count, spot : spot + 8]).view(">i8")[:, 0].astype(np.int64) for spot in spots
    ]
    return count, numbers[0], numbers[1] if len(spots) > 1 else None, rows[:count, body_at : body_at + size]


def _same(rows: Bodies, free: Sequence[tuple[int, int]]) -> int:
    """How many rows, from the first on, are like the first one outside of these columns."""
    fixed = [(a, b) for a, b in pairwise([0, *chain.from_iterable(free), rows.shape[1]])][::2]
    count, look = 0, _LOOK
    while count < len(rows):
        part = rows[count : count + look]
        same = np.ones(len(part), dtype=np.bool_)
        for begin, end in fixed:
            same &= (part[:, begin:end] == rows[0, begin:end]).all(axis=1)
        if not same.all():
            return count + int(same.argmin())
        count += len(part)
        look *= 2
    return count


def _whole(buffer: bytes, at: int) -> int | None:
    """Where the frame at `at` ends; None: it is not there yet as a whole."""
    if len(buffer) < at + _OVERHEAD:
        return None
    end = at + _OVERHEAD + int(_FRAME.unpack_from(buffer, at)[2])
    if len(buffer) < end:
        return None
    if buffer[end - 1] != _FRAME_END:
        raise InvalidFrameError("a frame without its end mark")
    return end


def stream_offset(header: bytes) -> int:
    """Position of a message in its stream, from its header frame as `deliver` has it."""
    at = header.find(_OFFSET)
    if at >= 0 and header.find(_OFFSET, at + 1) < 0:
        return int(_INT64.unpack_from(header, at + len(_OFFSET))[0])
    properties = spec.BasicProperties()
    properties.decode(header[10:])  # after weight and body size
    headers: Any = properties.headers
    return int(headers["x-stream-offset"])
