"""A server that speaks RocketMQ's remoting protocol to one client at a time, answering as a test scripts it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request as the server got it."""

    code: int
    opaque: int
    fields: Mapping[str, str]
    body: bytes


def answer(
    asked: Asked, code: int = 0, fields: Mapping[str, Any] | None = None, body: bytes = b"", remark: str = ""
) -> bytes:
    """The frame that answers a request."""
    header = {"code": code, "opaque": asked.opaque, "flag": 1, "remark": remark, "language": "JAVA"}
    header["extFields"] = {key: str(value) for key, value in (fields or {}).items()}
    text = json.dumps(header).encode()
    return struct.pack(">II", 4 + len(text) + len(body), len(text)) + text + body


def stored(
    place: int,
    offset: int,
    body: bytes,
    *,
    flag: int = 0,
    properties: bytes = b"",
    topic: str = "t",
    long: bool = False,
) -> bytes:
    """A message as the broker stores it; `long`: of version 2, with a length of the topic of two bytes."""
    hosts = (20 if flag & 0x10 else 8, 20 if flag & 0x20 else 8)
    rest = struct.pack(">q", 0) + bytes(hosts[0]) + struct.pack(">q", 0) + bytes(hosts[1]) + struct.pack(">Iq", 0, 0)
    rest += struct.pack(">I", len(body)) + body + struct.pack(">H" if long else ">B", len(topic)) + topic.encode()
    rest += struct.pack(">H", len(properties)) + properties
    magic, crc = 0xDAA320AB if long else 0xDAA320A7, zlib.crc32(body)
    return struct.pack(">IIIIIqqI", 40 + len(rest), magic, crc, place, 0, offset, 0, flag) + rest


def read_stored(data: bytes) -> list[tuple[int, int, bytes]]:
    """Queue, offset and body of each message, read field by field; raises ValueError, struct.error."""
    found = []
    at = 0
    while at < len(data):
        size, magic, _crc, place, _flag, offset, _at, system = struct.unpack_from(">IIIIIqqI", data, at)
        if magic not in (0xDAA320A7, 0xDAA320AB) or not 40 < size <= len(data) - at:
            raise ValueError(f"no message at byte {at}")
        body_at = at + 40 + 28 + (20 if system & 0x10 else 8) + (20 if system & 0x20 else 8) + 4
        (length,) = struct.unpack_from(">I", data, body_at - 4)
        if body_at + length > at + size:
            raise ValueError(f"body beyond the message at byte {at}")
        body = data[body_at : body_at + length]
        if system & 1:
            with contextlib.suppress(zlib.error):
                body = zlib.decompress(body)
        found.append((place, offset, body))
        at += size
    return found


class Server:
    """`script(asked)` returns the bytes to write back, or None for silence. Routes and positions are answered here
    unless the script does: `route` is the master's address (this server)."""

    def __init__(
        self,
        script: Callable[[Asked], bytes | None],
        host: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._script = script
        self._context = context
        self.asked: list[Asked] = []
        self._listener = socket.create_server((host, port))
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def of(self, code: int) -> list[Asked]:
        """What was asked with that code, in order."""
        return [asked for asked in self.asked if asked.code == code]

    def drop(self) -> None:
        """Close what is connected."""
        for connection in self._connections:
            with contextlib.suppress(OSError):  # the client may have gone first
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything; the shutdown wakes the thread in accept, which would keep the port."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        self._thread.join(5)
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._context is not None:
                try:
                    connection = self._context.wrap_socket(connection, server_side=True)
                except OSError:  # the client did not like us
                    continue
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        try:
            while len(lengths := stream.read(8)) == 8:
                total, header_length = struct.unpack(">II", lengths)
                header = json.loads(stream.read(header_length))
                body = stream.read(total - 4 - header_length)
                asked = Asked(header["code"], header["opaque"], header["extFields"], body)
                self.asked.append(asked)
                reply = self._script(asked)
                if reply is None:
                    reply = self._usual(asked)
                connection.sendall(reply)
        except (OSError, ValueError):
            return

    def _usual(self, asked: Asked) -> bytes:
        if asked.code == 105:
            brokers = [{"brokerName": "g", "brokerAddrs": {"0": self.address, "2": "127.0.0.1:1"}}]
            return answer(asked, body=json.dumps({"brokerDatas": brokers}).encode())
        if asked.code in (30, 31):
            return answer(asked, fields={"offset": 0})
        if asked.code == 14:
            return answer(asked, code=22, remark="no offset")
        if asked.code == 15:
            return answer(asked)
        return b""
