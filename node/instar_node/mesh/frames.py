"""What travels inside a tunnel.

Every transport message is one sealed piece: a header byte, then either a control message or a piece of a
data frame. Data frames are cut into pieces of at most ``PIECE`` bytes, so that a large one never stands in
the way of a small urgent one. All structures are msgpack arrays; a piece that does not decode ends the
connection.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from instar_node.contracts import Lane
from instar_node.mesh.addresses import MAX_OFFERED

TUNNEL_VERSION = 1
"""Version of the tunnel itself (handshake, framing). Bound into the handshake: a mismatch is a failure."""

PIECE = 16 * 1024
"""Most bytes of a data frame in one transport message."""

MAX_MESSAGE = PIECE + 64
"""Bound for one message on the WebSocket: a piece with header and tag fits well below it."""

MAX_FRAME: dict[Lane, int] = {Lane.LEASE: 64 * 1024, Lane.NORMAL: 8 << 20, Lane.BULK: 64 << 20}
"""Largest data frame of each lane, bytes."""

MAX_CODE = 64
"""Longest error code, characters."""

MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec raises on bytes it cannot decode: bad UTF-8 and deep nesting come as themselves."""

MachineId = Annotated[str, Meta(min_length=1, max_length=64)]
Kind = Annotated[str, Meta(min_length=1, max_length=64)]
Counter = Annotated[int, Meta(ge=0, lt=2**62)]
Url = Annotated[str, Meta(max_length=2_048)]


# -- before the tunnel is secure --------------------------------------------------------------------------


class Opening(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The dialling machine's first message, in clear: who calls whom, and Noise message 1."""

    version: int
    caller: MachineId
    called: MachineId
    noise: Annotated[bytes, Meta(max_length=256)]


class Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The called machine's answer: Noise message 2."""

    noise: Annotated[bytes, Meta(max_length=256)]


# -- control: about the tunnel itself -----------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """First sealed message of each side: what this machine is and speaks."""

    version: Annotated[str, Meta(max_length=64)]
    protocol: tuple[int, int]
    """Lowest and highest protocol this node speaks."""
    incarnation: Annotated[str, Meta(max_length=64)]
    """Random per process start."""
    urls: Annotated[tuple[Url, ...], Meta(max_length=MAX_OFFERED)]
    """Where it can be reached, as it believes."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Sent by the dialling side while the tunnel lives; ``rtt_us`` lets the other side know it too."""

    n: Counter
    rtt_us: Counter | None


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong"):
    """Answers the ping of this number."""

    n: Counter


class Credit(msgspec.Struct, frozen=True, array_like=True, tag="credit"):
    """This many more bytes of the lane have been taken in; as many may follow."""

    lane: Lane
    bytes: Counter


class RekeyOpen(msgspec.Struct, frozen=True, array_like=True, tag="rekey"):
    """Message 1 of a new handshake inside the tunnel."""

    noise: Annotated[bytes, Meta(max_length=256)]


class RekeyAnswer(msgspec.Struct, frozen=True, array_like=True, tag="rekeyed"):
    """Message 2; everything its sender sends afterwards is under the new key."""

    noise: Annotated[bytes, Meta(max_length=256)]


class RekeyDone(msgspec.Struct, frozen=True, array_like=True, tag="switched"):
    """Everything its sender sends afterwards is under the new key."""


Control = Hello | Ping | Pong | Credit | RekeyOpen | RekeyAnswer | RekeyDone


# -- data: what the parts say to each other -----------------------------------------------------------------


class Request(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    """Asks for an answer; ``body`` is a struct tagged ``kind``. After ``within_ms`` nobody waits any more."""

    id: Counter
    kind: Kind
    within_ms: Counter
    body: Raw


class Response(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """The answer to request ``id``."""

    id: Counter
    body: Raw


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """Request ``id`` was refused; ``detail`` is the whole error object, with its HTTP ``status``."""

    id: Counter
    code: Annotated[str, Meta(max_length=MAX_CODE)]
    message: str
    detail: dict[str, Any]


class Notice(msgspec.Struct, frozen=True, array_like=True, tag="n"):
    """One-way; ``body`` is a struct tagged ``kind``."""

    kind: Kind
    body: Raw


Frame = Request | Response | Failure | Notice


class FrameError(Exception):
    """The other side sent something that is not of this protocol. The connection ends."""


_encoder = msgspec.msgpack.Encoder()
_frames: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_controls: msgspec.msgpack.Decoder[Control] = msgspec.msgpack.Decoder(Control)

_CONTROL = 0x00
_DATA = 0x80
_LAST = 0x01


def encode_frame(frame: Frame) -> bytes:
    """A data frame, to be cut into pieces."""
    return _encoder.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """The data frame put together again. Raises ``FrameError``."""
    try:
        return _frames.decode(data)
    except MALFORMED as error:
        raise FrameError(f"malformed frame: {error}") from error


def control_piece(message: Control) -> bytes:
    """A control message as one piece."""
    return bytes((_CONTROL,)) + _encoder.encode(message)


def data_piece(lane: Lane, last: bool, data: bytes | memoryview) -> bytes:
    """One piece of a data frame."""
    return bytes((_DATA | lane << 1 | last,)) + data


class DataPiece(msgspec.Struct, frozen=True):
    """A received piece of a data frame; ``last`` completes it."""

    lane: Lane
    last: bool
    data: bytes


def parse_piece(piece: bytes) -> Control | DataPiece:
    """What one opened transport message holds. Raises ``FrameError``."""
    if not piece:
        raise FrameError("empty message")
    header = piece[0]
    try:
        if header == _CONTROL:
            return _controls.decode(piece[1:])
        if header & ~(_LAST | 0x06) == _DATA:
            return DataPiece(Lane((header & 0x06) >> 1), bool(header & _LAST), piece[1:])
    except MALFORMED as error:
        raise FrameError(f"malformed message: {error}") from error
    raise FrameError("unknown kind of message")
