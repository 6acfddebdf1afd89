"""Three questions to one Kafka node over a socket of our own: what do you know of the cluster, what can you do, who
leads the metadata quorum?

The client library asks whichever node it likes, and its answers leave out the leader epoch and the features. But
after a partition an old leader goes on naming itself, with a full ISR, until it has caught up: only the views of all
nodes side by side, and their epochs, show who leads and whether everybody knows. Rules: one question is one connection
with one bound; what a node does not answer in time, or what cannot be parsed, is an OSError or a ValueError.

Formats: kafka.apache.org/protocol, Metadata v8 (clients/kafka_codec.py), ApiVersions v3 and DescribeQuorum v0 (compact
fields and tags).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping

from mqtest.clients.kafka_codec import Api, Cursor, View, head, metadata, parsed, read_metadata

_METADATA_TOPIC = b"__cluster_metadata"
_CLIENT = "mqtest"
_LARGEST = 16 << 20
_FINALIZED_FEATURES = 2  # tag in the ApiVersions response


def view(address: str, port: int, timeout_s: float) -> View:
    """Ask one node for its view of the cluster; raises OSError or ValueError."""
    return parsed(_ask(address, port, Api.METADATA, metadata(None), timeout_s), read_metadata)


def features(address: str, port: int, timeout_s: float) -> Mapping[str, int]:
    """The features that are finalized in the cluster and their levels, by one node; raises OSError or ValueError."""
    name = bytes([len(_CLIENT) + 1]) + _CLIENT.encode()
    body = b"\0" + name + name + b"\0"  # end of the flexible request header; software name, version; no tags
    return parsed(_ask(address, port, Api.API_VERSIONS, body, timeout_s), _read_features)


def quorum_leader(address: str, port: int, timeout_s: float) -> tuple[int, int]:
    """(node id, epoch) of the leader of the metadata quorum, which is the active controller, by the word that one node
    gets from it; raises OSError or ValueError, the latter also while there is none."""
    topic = bytes([len(_METADATA_TOPIC) + 1]) + _METADATA_TOPIC
    body = b"\0" + b"\2" + topic + b"\2" + struct.pack(">i", 0) + b"\0\0\0"  # tags; one topic, its one partition; tags
    return parsed(_ask(address, port, Api.DESCRIBE_QUORUM, body, timeout_s), _read_quorum_leader)


def _ask(address: str, port: int, api: Api, body: bytes, timeout_s: float) -> Cursor:
    """Send one request, return the response without its header."""
    deadline = time.monotonic() + timeout_s
    with socket.create_connection((address, port), timeout=timeout_s) as connection:
        connection.sendall(head(api, 1, _CLIENT, len(body)) + body)
        (size,) = struct.unpack(">i", _receive(connection, 4, deadline))
        if not 4 <= size <= _LARGEST:
            raise ValueError(f"{address}:{port} answered with {size} bytes")
        return Cursor(_receive(connection, size, deadline)[4:])


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    got = bytearray()
    while len(got) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        part = connection.recv(size - len(got))
        if not part:
            raise ConnectionResetError("closed by the node")
        got += part
    return bytes(got)


def _read_features(cursor: Cursor) -> Mapping[str, int]:
    error = cursor.number("h")
    if error:
        raise ValueError(f"error {error} instead of the versions")
    for _ in range(cursor.varint() - 1):  # the requests it knows
        cursor.raw(6)
        _skip_tags(cursor)
    cursor.number("i")  # throttle
    found: dict[str, int] = {}
    for _ in range(cursor.varint()):
        tag, size = cursor.varint(), cursor.varint()
        if tag != _FINALIZED_FEATURES:
            cursor.raw(size)
            continue
        for _ in range(cursor.varint() - 1):
            name = bytes(cursor.raw(cursor.varint() - 1)).decode()
            found[name] = cursor.number("h")  # highest level, the one in force
            cursor.number("h")  # lowest
            _skip_tags(cursor)
    return found


def _read_quorum_leader(cursor: Cursor) -> tuple[int, int]:
    _skip_tags(cursor)  # of the header
    error = cursor.number("h")
    if error or cursor.varint() != 2:
        raise ValueError(f"error {error} instead of the metadata quorum")
    cursor.raw(cursor.varint() - 1)  # the topic's name
    if cursor.varint() != 2:
        raise ValueError("not the one partition that was asked for")
    cursor.number("i")
    error, leader, epoch = cursor.number("h"), cursor.number("i"), cursor.number("i")
    if error or leader < 0:
        raise ValueError(f"the metadata quorum has no leader (error {error})")
    return leader, epoch


def _skip_tags(cursor: Cursor) -> None:
    for _ in range(cursor.varint()):
        cursor.varint()
        cursor.raw(cursor.varint())
