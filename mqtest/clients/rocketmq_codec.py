"""RocketMQ's remoting protocol as bytes: frames, the header of a send, the body of a batch. Pure functions.

    frame    │ u4 length of the rest │ u1 serialization (0 = JSON) │ u3 length of header │ header, JSON │ body

All numbers are big endian. The layout as in apache/rocketmq RemotingCommand.java. A request is answered by a frame
with the same `opaque` and bit 0 of `flag` set; a broker may send requests of its own. What a pull brings is read in
rocketmq_messages.py.
"""

from __future__ import annotations

import base64
import hmac
import json
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray


class Request:
    """Request codes that we use, as in RequestCode.java."""

    PULL_MESSAGE: Final = 11
    QUERY_CONSUMER_OFFSET: Final = 14
    UPDATE_CONSUMER_OFFSET: Final = 15
    UPDATE_AND_CREATE_TOPIC: Final = 17
    GET_BROKER_CONFIG: Final = 26
    GET_BROKER_RUNTIME_INFO: Final = 28
    SEARCH_OFFSET_BY_TIMESTAMP: Final = 29
    GET_MAX_OFFSET: Final = 30
    GET_MIN_OFFSET: Final = 31
    UNREGISTER_BROKER: Final = 104
    GET_ROUTE: Final = 105
    GET_CLUSTER: Final = 106
    UPDATE_AND_CREATE_SUBSCRIPTION_GROUP: Final = 200
    DELETE_TOPIC_IN_BROKER: Final = 215
    DELETE_TOPIC_IN_NAME_SERVER: Final = 216
    SEND_MESSAGE_V2: Final = 310
    SEND_BATCH_MESSAGE: Final = 320
    GET_TOPIC_CONFIG: Final = 351
    EXCHANGE_BROKER_HA_INFO: Final = 906
    GET_BROKER_HA_STATUS: Final = 907
    CONTROLLER_ELECT_MASTER: Final = 1002
    CONTROLLER_GET_METADATA: Final = 1005
    CONTROLLER_GET_SYNC_STATE: Final = 1006


class Code:
    """Answer codes that we act on, as in ResponseCode.java and RemotingSysResponseCode.java."""

    SUCCESS: Final = 0
    SYSTEM_ERROR: Final = 1
    SYSTEM_BUSY: Final = 2
    FLUSH_DISK_TIMEOUT: Final = 10
    SLAVE_NOT_AVAILABLE: Final = 11
    FLUSH_SLAVE_TIMEOUT: Final = 12
    MESSAGE_ILLEGAL: Final = 13
    SERVICE_NOT_AVAILABLE: Final = 14
    NO_PERMISSION: Final = 16
    TOPIC_NOT_EXIST: Final = 17
    PULL_NOT_FOUND: Final = 19
    PULL_RETRY_IMMEDIATELY: Final = 20
    PULL_OFFSET_MOVED: Final = 21
    QUERY_NOT_FOUND: Final = 22
    INVALID_PARAMETER: Final = 29
    GO_AWAY: Final = 1500


class Header(msgspec.Struct):
    """The JSON header of a frame. `fields` of an answer depend on the request."""

    code: int
    opaque: int
    flag: int = 0
    remark: str | None = None
    fields: dict[str, str] | None = msgspec.field(default=None, name="extFields")

    @property
    def is_answer(self) -> bool:
        """False: the broker asks something of us."""
        return bool(self.flag & 1)


class Frame(NamedTuple):
    """One whole frame."""

    header: Header
    body: bytes


class MalformedError(ValueError):
    """Bytes that are no frame or no message; the connection they came from is beyond use."""


MOST_FRAME_BYTES: Final = 1 << 28
_VERSION: Final = 493
_LENGTHS = struct.Struct(">II")
_decode_header = msgspec.json.Decoder(Header).decode


def request(code: int, opaque: int, fields: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """The frame of any request."""
    header = {
        "code": code,
        "language": "PYTHON",
        "version": _VERSION,
        "opaque": opaque,
        "flag": 0,
        "serializeTypeCurrentRPC": "JSON",
        "extFields": dict(fields or {}),
    }
    return _framed(json.dumps(header, separators=(",", ":")).encode(), body)


def _framed(header: bytes, body: bytes) -> bytes:
    return b"%b%b%b" % (_LENGTHS.pack(4 + len(header) + len(body), len(header)), header, body)


class Login(NamedTuple):
    """What a broker with ACL wants to see."""

    access_key: str
    secret_key: str

    def sign(self, fields: Mapping[str, str], body: bytes) -> dict[str, str]:
        """The fields with the key and the signature: HMAC-SHA1 over the values in the order of their names, then the
        body (AclClientRPCHook.java, AclUtils.java)."""
        named = {**fields, "AccessKey": self.access_key}
        content = "".join(named[name] for name in sorted(named)).encode() + body
        signature = base64.b64encode(hmac.digest(self.secret_key.encode(), content, "sha1"))
        return {**named, "Signature": signature.decode()}


def send_fields(topic: str, group: str, *, batch: bool = False) -> dict[str, str]:
    """The fields of a send but for `e`, the queue, and `g`, when it was born in ms. V2 has letters for names: a group,
    b topic, c default topic, d its queues, f system flag, h flag, i properties, j reconsumed, k unit mode, m batch
    (SendMessageRequestHeaderV2.java)."""
    fields = {"a": group, "b": topic, "c": "TBW102", "d": "4", "f": "0"}
    return fields | {"h": "0", "i": "", "j": "0", "k": "false", "m": str(batch).lower()}


class SendFrames:
    """Frames of SEND_MESSAGE_V2, or of SEND_BATCH_MESSAGE, for one topic and group: the header written by hand, as it
    costs most of a send."""

    __slots__ = ("_code", "_fields", "_head", "_login", "_tail")

    def __init__(self, topic: str, group: str, login: Login | None = None, *, batch: bool = False) -> None:
        self._login = login
        self._code = Request.SEND_BATCH_MESSAGE if batch else Request.SEND_MESSAGE_V2
        self._head = b'{"code":%d,"language":"PYTHON","version":%d,"opaque":' % (self._code, _VERSION)
        self._fields = send_fields(topic, group, batch=batch)
        fields = json.dumps(self._fields, separators=(",", ":")).encode()
        self._tail = b',"flag":0,"serializeTypeCurrentRPC":"JSON","extFields":%b,"e":"' % fields.removesuffix(b"}")

    def frame(self, opaque: int, place: int, born_ms: int, body: bytes) -> bytes:
        """One message, or one `batch_body`, for queue `place`."""
        if self._login is not None:
            fields = self._login.sign({**self._fields, "e": str(place), "g": str(born_ms)}, body)
            return request(self._code, opaque, fields, body)
        return _framed(b'%b%d%b%d","g":"%d"}}' % (self._head, opaque, self._tail, place, born_ms), body)


def batch_body(bodies: NDArray[np.uint8]) -> bytes:
    """The body of a SEND_BATCH_MESSAGE: messages without properties, one a row, as MessageDecoder.encodeMessages lays
    them: u4 size, u4 magic, u4 body CRC, u4 flag, u4 length of the body, the body, u2 length of the properties."""
    count, size = bodies.shape
    laid = np.zeros((count, 22 + size), dtype=np.uint8)
    laid[:, :20] = np.frombuffer(struct.pack(">IIIII", 22 + size, 0, 0, 0, size), dtype=np.uint8)
    laid[:, 20 : 20 + size] = bodies
    return laid.tobytes()


def take_frames(buffer: bytearray) -> list[Frame]:
    """All whole frames at the start of `buffer`, removed from it; raises MalformedError."""
    frames: list[Frame] = []
    at, end = 0, len(buffer)
    view = memoryview(buffer)
    try:
        while end - at >= 8:
            length, header_length = _LENGTHS.unpack_from(view, at)
            header_length &= 0xFFFFFF
            if length > MOST_FRAME_BYTES or header_length + 4 > length:
                raise MalformedError(f"a frame of {length} bytes with a header of {header_length}")
            stop = at + 4 + length
            if stop > end:
                break
            body_at = at + 8 + header_length
            try:
                header = _decode_header(view[at + 8 : body_at])
            except msgspec.DecodeError as error:
                raise MalformedError(f"header of a frame: {error}") from error
            frames.append(Frame(header, bytes(view[body_at:stop])))
            at = stop
    finally:
        view.release()
    del buffer[:at]
    return frames
