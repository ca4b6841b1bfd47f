"""Whatever a stranger sends to ``/mesh/tunnel``, it gets a refusal, and nothing else happens."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import WSMessage, WSMsgType
from hypothesis import given, settings
from hypothesis import strategies as st

from instar_node.clock import SystemClock
from instar_node.mesh.channel import RekeyPolicy
from instar_node.mesh.frames import TUNNEL_VERSION, Opening
from instar_node.mesh.noise import Handshake
from instar_node.mesh.opening import HandshakeError, answer
from tests.unit.mesh_world import Identity, Registry

ME, FRIEND, STRANGER = Identity("m_me"), Identity("m_friend"), Identity("m_stranger")


class Wire:
    """A socket on which a stranger has said all it will say."""

    def __init__(self, *said: bytes) -> None:
        self.said = [WSMessage(WSMsgType.BINARY, data, None) for data in said]
        self.heard: list[bytes] = []

    async def receive(self) -> WSMessage:
        return self.said.pop(0) if self.said else WSMessage(WSMsgType.CLOSED, None, None)

    async def send_bytes(self, data: bytes) -> None:
        self.heard.append(data)

    async def close(self, *, code: int = 1000, message: bytes = b"") -> None:
        return None


def registry() -> Registry:
    members = Registry()
    members.admit(ME)
    members.admit(FRIEND)
    return members


def refused(*said: bytes) -> Wire:
    """Say this to ``ME``, which must refuse it and nothing but refuse it."""
    wire, members = Wire(*said), registry()
    before = dict(members.members)
    with pytest.raises(HandshakeError):
        asyncio.run(answer(wire, ME, members, SystemClock(), RekeyPolicy()))
    assert members.members == before
    return wire


def opening(noise: bytes, caller: str = FRIEND.machine_id, version: int = TUNNEL_VERSION) -> bytes:
    return msgspec.msgpack.encode(Opening(version, caller, ME.machine_id, noise))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_junk_is_refused_without_an_answer(data: bytes) -> None:
    assert refused(data).heard == []


@settings(max_examples=60, deadline=None)
@given(
    version=st.integers(-1, 300),
    caller=st.sampled_from([FRIEND.machine_id, STRANGER.machine_id, ME.machine_id, "", "x" * 64]),
    noise=st.binary(max_size=256),
)
def test_a_well_formed_opening_without_the_key_is_refused_without_an_answer(
    version: int, caller: str, noise: bytes
) -> None:
    assert refused(opening(noise, caller, version)).heard == []


@settings(max_examples=40, deadline=None)
@given(after=st.binary(max_size=200))
def test_a_true_opening_played_again_gets_an_answer_that_serves_nobody_else(after: bytes) -> None:
    """Message 1 alone proves nothing: whoever replays it cannot seal the hello that must follow."""
    public = ME.encryption_private.public_key().public_bytes_raw()
    context = ("instar-tunnel", TUNNEL_VERSION, "mesh-1", FRIEND.machine_id, ME.machine_id, b"")
    prologue = msgspec.msgpack.encode(context)
    true = Handshake(True, FRIEND.encryption_private, public, prologue).write_message()
    assert len(refused(opening(true), after).heard) == 1
