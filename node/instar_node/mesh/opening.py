"""Opening a tunnel over a WebSocket: the Noise handshake, then one sealed hello from each side.

The called machine does nothing on message 1 but compute its answer. It counts a caller as present only once
the caller's hello has opened under the new keys. Whatever is wrong with a caller (never admitted, removed,
wrong key, wrong mesh, nonsense), it sees the same: the connection closes.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from aiohttp import WSMessage, WSMsgType
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from instar_node.clock import Clock
from instar_node.contracts import Member, Members
from instar_node.mesh.channel import Channel, Pairing, RekeyPolicy, TunnelIdentity
from instar_node.mesh.frames import (
    MALFORMED,
    TUNNEL_VERSION,
    Answer,
    FrameError,
    Hello,
    Opening,
    parse_piece,
)
from instar_node.mesh.noise import NoiseError

_opening = msgspec.msgpack.Decoder(Opening)
_answer = msgspec.msgpack.Decoder(Answer)

_NOBODY = X25519PrivateKey.generate().public_key().public_bytes_raw()
"""Stands in for the key of an unknown caller, so that refusing one takes as long as refusing a wrong key."""


class HandshakeError(Exception):
    """No tunnel came of it. The text is for our own log, never for the other side."""


class Socket(Protocol):
    """What both ends of an aiohttp WebSocket have in common."""

    async def receive(self) -> WSMessage: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def close(self, *, code: int = 1000, message: bytes = b"") -> Any: ...


async def call(
    socket: Socket,
    me: TunnelIdentity,
    mesh_id: str,
    member: Member,
    hello: Hello,
    clock: Clock,
    policy: RekeyPolicy,
) -> tuple[Channel, Hello]:
    """Open a tunnel to ``member`` as the dialling side; returns its keys and the member's hello.

    Raises:
        HandshakeError: The other end is not that member, or does not want the tunnel.
    """
    pairing = Pairing(
        me.encryption_private, member.encryption_public, mesh_id, me.machine_id, member.machine_id, True
    )
    try:
        handshake = pairing.handshake()
        opening = Opening(TUNNEL_VERSION, me.machine_id, member.machine_id, handshake.write_message())
        await socket.send_bytes(msgspec.msgpack.encode(opening))
        handshake.read_message(_answer.decode(await _binary(socket)).noise)
        channel = Channel(pairing, handshake, policy, clock.now())
        await send_hello(socket, channel, hello, clock)
        return channel, await _receive_hello(socket, channel)
    except (NoiseError, FrameError, ConnectionError, *MALFORMED) as error:
        raise HandshakeError(str(error)) from error


async def answer(
    socket: Socket, me: TunnelIdentity, members: Members, clock: Clock, policy: RekeyPolicy
) -> tuple[str, Channel, Hello]:
    """Answer a caller; returns its id, the keys and its hello.

    The caller still waits for our hello: ``send_hello`` makes the tunnel usable, closing refuses it.

    Raises:
        HandshakeError: The caller is not an active member of this mesh.
    """
    try:
        opening = _opening.decode(await _binary(socket))
        member = members.get(opening.caller)
        known = member is not None and not member.removed and opening.caller != me.machine_id
        public = member.encryption_public if member is not None and known else _NOBODY
        pairing = Pairing(
            me.encryption_private, public, members.mesh_id, opening.caller, me.machine_id, False
        )
        handshake = pairing.handshake()
        handshake.read_message(opening.noise)
        await socket.send_bytes(msgspec.msgpack.encode(Answer(handshake.write_message())))
        channel = Channel(pairing, handshake, policy, clock.now())
        return opening.caller, channel, await _receive_hello(socket, channel)
    except (NoiseError, FrameError, ConnectionError, *MALFORMED) as error:
        raise HandshakeError(str(error)) from error


async def send_hello(socket: Socket, channel: Channel, hello: Hello, clock: Clock) -> None:
    """Send our hello, the first sealed message of this side."""
    await socket.send_bytes(channel.seal_control(hello, clock.now()))


async def _receive_hello(socket: Socket, channel: Channel) -> Hello:
    message = parse_piece(channel.open(await _binary(socket)))
    if not isinstance(message, Hello):
        raise FrameError("expected a hello")
    return message


async def _binary(socket: Socket) -> bytes:
    message = await socket.receive()
    if message.type is not WSMsgType.BINARY:
        raise HandshakeError(f"the other end closed ({message.extra or message.type.name})")
    data: bytes = message.data
    return data
