"""A server that speaks as much of Kafka's protocol as the wire client asks for, with a log in memory, and a plain
parser of record batches that shares nothing with the client's."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

_CRC_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = _n >> 1 ^ (0x82F63B78 if _n & 1 else 0)
    _CRC_TABLE.append(_n)


def crc32c(data: bytes) -> int:
    """RFC 3720, byte by byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Batch(NamedTuple):
    """A record batch, read in full."""

    base: int
    attributes: int
    first_time: int
    producer: int
    epoch: int
    sequence: int
    records: list[tuple[int, bytes | None, bytes | None]]
    """offset, key, value"""


def read_batch(data: bytes) -> Batch:
    """Reads one batch and checks everything that its header says."""
    base, length, _, magic, crc, attributes, last, first_time, max_time, producer, epoch, sequence, count = (
        struct.unpack_from(">qiibIhiqqqhii", data)
    )
    assert magic == 2
    assert length == len(data) - 12
    assert crc == crc32c(data[21:])
    assert max_time >= first_time
    records, at = [], 61

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value >> 1 ^ -(value & 1)

    def field() -> bytes | None:
        nonlocal at
        size = varint()
        if size < 0:
            return None
        at += size
        return data[at - size : at]

    for _ in range(count):
        size = varint()
        end = at + size
        assert data[at] == 0
        at += 1
        varint()  # time
        offset = base + varint()
        key, value = field(), field()
        for _ in range(varint()):
            field(), field()
        assert at == end
        records.append((offset, key, value))
    assert at == len(data)
    if not attributes & 0x20:
        assert last == count - 1
        assert [offset for offset, _, _ in records] == list(range(base, base + count))
    return Batch(base, attributes, first_time, producer, epoch, sequence, records)


def written_batch(
    base: int, values: list[bytes], *, attributes: int = 0, key: bytes | None = None, gap: int = 1, times: bool = False
) -> bytes:
    """A batch as another client might write it: keys, times of their own, gaps between offsets (a compacted log)."""

    def varint(number: int) -> bytes:
        value, made = number << 1 ^ number >> 63, b""
        while value > 127:
            made += bytes([value & 127 | 128])
            value >>= 7
        return made + bytes([value])

    records = b""
    for nth, value in enumerate(values):
        head = b"\0" + varint(nth if times else 0) + varint(nth * gap)
        head += varint(-1) if key is None else varint(len(key)) + key
        one = head + varint(len(value)) + value + b"\0"
        records += varint(len(one)) + one
    last = (len(values) - 1) * gap
    rest = struct.pack(">hiqqqhii", attributes, last, 1000, 1000, -1, -1, -1, len(values)) + records
    return struct.pack(">qiibI", base, len(rest) + 9, 0, 2, crc32c(rest)) + rest


class Reader:
    """Reads a request."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, code: str) -> Any:
        values = struct.unpack_from(f">{code}", self.data, self.at)
        self.at += struct.calcsize(f">{code}")
        return values[0] if len(values) == 1 else values

    def text(self) -> str | None:
        size = self.take("h")
        if size < 0:
            return None
        self.at += size
        return self.data[self.at - size : self.at].decode()


def text(value: str | None) -> bytes:
    return b"\xff\xff" if value is None else struct.pack(">h", len(value)) + value.encode()


Verdict = tuple[int, int] | None | str
"""error and offset to answer, None: no answer, `close`: drop the connection"""


class Server:
    """One node, which leads `places` places of topic `t`. `on_produce(place, batch)` may return a verdict of its own,
    or `store`: append and acknowledge. `logs` has what it appended: first and last offset, bytes of each batch."""

    def __init__(self, places: int = 1, on_produce: Callable[[int, Batch], Verdict] = lambda _p, _b: "store") -> None:
        self.logs: list[list[tuple[int, int, bytes]]] = [[] for _ in range(places)]
        self.starts = [0] * places
        self.committed: dict[tuple[str, int], int] = {}
        self.produced: list[tuple[int, int, Batch]] = []
        """acks, place, batch"""
        self.requests: list[tuple[int, int]] = []
        """api and version"""
        self.leader = 0
        self.epoch = 5
        self.not_yet = 0
        """so often the coordinator is not there yet"""
        self.no_ids_yet = 0
        """so often it has no producer id to give yet"""
        self.fetch_error = self.commit_error = 0
        self.cut_last = 0
        """bytes that are missing at the end of what is fetched"""
        self.silent = False
        self._on_produce = on_produce
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.names = self.port
        """the port of the node that it calls the leader"""
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(5)

    def drop(self) -> None:
        """Tear every connection."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def append(self, place: int, batch: bytes) -> None:
        """Put a batch into a log as it is."""
        base = struct.unpack_from(">q", batch)[0]
        self.logs[place].append((base, base + struct.unpack_from(">i", batch, 23)[0], batch))

    def end(self, place: int) -> int:
        return self.logs[place][-1][1] + 1 if self.logs[place] else self.starts[place]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                size = struct.unpack(">i", self._exactly(connection, 4))[0]
                reader = Reader(self._exactly(connection, size))
                api, version, correlation = reader.take("hhi")
                reader.text()
                self.requests.append((api, version))
                if self.silent:
                    continue
                answer = getattr(self, f"_answer_{api}")(reader)
                assert reader.at == len(reader.data) or answer == "close", "the whole request was read"
                if answer == "close":
                    return
                if answer is not None:
                    body = struct.pack(">i", correlation) + answer
                    connection.sendall(struct.pack(">i", len(body)) + body)

    @staticmethod
    def _exactly(connection: socket.socket, size: int) -> bytes:
        got = b""
        parts = []
        while size:
            got = connection.recv(min(size, 1 << 20))
            if not got:
                raise EOFError
            parts.append(got)
            size -= len(got)
        return b"".join(parts)

    def _answer_0(self, reader: Reader) -> bytes | str | None:
        assert reader.text() is None
        acks, _timeout, topics = reader.take("hii")
        assert (topics, reader.text(), reader.take("i")) == (1, "t", 1)
        place, size = reader.take("ii")
        data = reader.data[reader.at : reader.at + size]
        reader.at += size
        batch = read_batch(data)
        self.produced.append((acks, place, batch))
        verdict = self._on_produce(place, batch)
        if verdict == "store":
            base = self.end(place)
            self.append(place, struct.pack(">q", base) + data[8:])
            verdict = (0, base)
        if not isinstance(verdict, tuple):
            return verdict
        if not acks:
            return None
        error, base = verdict
        return (
            struct.pack(">i", 1) + text("t") + struct.pack(">iihqqqi", 1, place, error, base, -1, 0, 0) + text(None)
            + struct.pack(">i", 0)
        )  # fmt: skip

    def _answer_1(self, reader: Reader) -> bytes:
        _, wait_ms, _, _, isolation, session, epoch, topics = reader.take("iiiibiii")
        assert (isolation, session, epoch, topics, reader.text()) == (0, 0, -1, 1, "t")
        asked = [reader.take("iiqqi") for _ in range(reader.take("i"))]
        assert (reader.take("i"), reader.text()) == (0, "")
        parts = []
        for place, leader_epoch, offset, _, most in asked:
            assert leader_epoch == -1
            data, error = b"", self.fetch_error
            if not self.starts[place] <= offset <= self.end(place):
                error = 1
            for _, last, batch in self.logs[place]:
                if last >= offset and (not data or len(data) < most):
                    data += batch
            data = b"" if error else data[: len(data) - self.cut_last] if self.cut_last else data
            parts.append((place, error, data))
        if not any(data or error for _, error, data in parts):
            threading.Event().wait(min(wait_ms, 20) / 1000)
        body = struct.pack(">ihii", 0, 0, 0, 1) + text("t") + struct.pack(">i", len(parts))
        for place, error, data in parts:
            end = self.end(place)
            body += struct.pack(">ihqqqiii", place, error, end, end, self.starts[place], -1, -1, len(data)) + data
        return body

    def _answer_2(self, reader: Reader) -> bytes:
        assert reader.take("ib") == (-1, 0)
        assert (reader.take("i"), reader.text()) == (1, "t")
        body = struct.pack(">ii", 0, 1) + text("t")
        count = reader.take("i")
        body += struct.pack(">i", count)
        for _ in range(count):
            place, _, which = reader.take("iiq")
            body += struct.pack(">ihqqi", place, 0, -1, self.starts[place] if which == -2 else self.end(place), 0)
        return body

    def _answer_3(self, reader: Reader) -> bytes:
        assert (reader.take("i"), reader.text(), reader.take("bbb")) == (1, "t", (0, 0, 0))
        body = struct.pack(">iii", 0, 1, 0) + text("127.0.0.1") + struct.pack(">i", self.names) + text(None)
        body += text("cluster") + struct.pack(">iih", 0, 1, 0) + text("t") + struct.pack(">bi", 0, len(self.logs))
        for place in range(len(self.logs)):
            body += struct.pack(">hiiiiiiii", 0, place, self.leader, self.epoch, 1, 0, 1, 0, 0)
        return body + struct.pack(">i", 0)

    def _answer_8(self, reader: Reader) -> bytes:
        group = reader.text()
        assert (reader.take("i"), reader.text(), reader.text()) == (-1, "", None)
        assert (reader.take("i"), reader.text()) == (1, "t")
        body = struct.pack(">ii", 0, 1) + text("t")
        count = reader.take("i")
        body += struct.pack(">i", count)
        for _ in range(count):
            place, offset, _ = reader.take("iqi")
            reader.text()
            if not self.commit_error:
                self.committed[str(group), place] = offset
            body += struct.pack(">ih", place, self.commit_error)
        return body

    def _answer_9(self, reader: Reader) -> bytes:
        group = reader.text()
        assert (reader.take("i"), reader.text()) == (1, "t")
        body = struct.pack(">ii", 0, 1) + text("t")
        count = reader.take("i")
        body += struct.pack(">i", count)
        for _ in range(count):
            place = reader.take("i")
            body += struct.pack(">iqi", place, self.committed.get((str(group), place), -1), -1) + text("") + b"\0\0"
        return body + b"\0\0"

    def _answer_10(self, reader: Reader) -> bytes:
        reader.text()
        assert reader.take("b") == 0
        error = 15 if self.not_yet else 0
        self.not_yet = max(0, self.not_yet - 1)
        return (
            struct.pack(">ih", 0, error)
            + text(None)
            + struct.pack(">i", 0)
            + text("127.0.0.1")
            + struct.pack(">i", self.port)
        )

    def _answer_22(self, reader: Reader) -> bytes:
        assert reader.text() is None
        reader.take("i")
        if self.no_ids_yet:
            self.no_ids_yet -= 1
            return struct.pack(">ihqh", 0, 14, -1, -1)
        return struct.pack(">ihqh", 0, 0, 4711, 3)
