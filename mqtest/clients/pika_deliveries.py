"""Deliveries, read out of what a connection received before pika decodes it: a fifth of the CPU of pika's own way.

Rules:
- Only whole messages of basic.deliver are taken out (AMQP 0-9-1, 4.2.3 to 4.2.6: a method frame, a header frame, body
  frames, of one channel, with no other frame of that channel between). Every other frame goes to pika as it came, in
  its place among them, so whoever waits for an answer of the broker still sees it after what was delivered before it.
- What is taken out counts as traffic for the heartbeat, which looks at `bytes_received`.
- A frame without its end mark is InvalidFrameError, which ends the connection as pika's own would.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from pika import spec
from pika.exceptions import InvalidFrameError

RECEIVE_BYTES: Final = 1 << 18
"""at most, at a time; pika takes 4,096"""

Deliver = Callable[[bytes, int, bool, bytes, bytes], None]
"""deliver(consumer tag, delivery tag, redelivered, header frame without its class, body)"""

_FRAME: Final = struct.Struct(">BHL")
_HEADER: Final = struct.Struct(">BHLHHQ")
_TAG: Final = struct.Struct(">QB")
_DELIVER: Final = struct.pack(">HH", 60, 60)
_FRAME_END: Final = 0xCE
_OVERHEAD: Final = _FRAME.size + 1
_OFFSET: Final = b"\x0fx-stream-offsetl"
_INT64: Final = struct.Struct(">q")


def take_deliveries(connection: Any, deliver: Deliver) -> None:
    """From now on `deliver` is called for each message that an open connection of pika's receives."""
    connection._transport._MAX_RECV_BYTES = RECEIVE_BYTES
    connection._on_data_available = _Receiver(connection, deliver).received


class _Receiver:
    def __init__(self, connection: Any, deliver: Deliver) -> None:
        self._connection = connection
        self._pass_on: Callable[[bytes], None] = connection._on_data_available
        self._deliver = deliver
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
        name_end = at + 12 + buffer[at + 11]
        tag, redelivered = _TAG.unpack_from(buffer, name_end)
        body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        name, properties = buffer[at + 12 : name_end], buffer[header + _FRAME.size + 2 : first - 1]
        self._deliver(name, tag, bool(redelivered & 1), properties, body)
        return end


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
