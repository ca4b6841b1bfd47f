"""A write follows the awake role: the machine that lost it is asked no more, the one that has it at once."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from instar_node.api import types as t
from instar_node.api.forwarding import Forwarding
from instar_node.api.holder_api import HolderApi
from instar_node.api.routes import SEND
from instar_node.clock import SystemClock
from instar_node.errors import InstarError
from tests.unit.fakes_mesh import FakeAuthority, FakeMembers, Net

DESK, MINI = "m-desk", "m-mini"


class PatientClock(SystemClock):
    """Nobody sleeps: a pause ends when the test says so, which it never does."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


class Holder:
    """What the awake machine does with a message: refuse it as one that is losing its role, or take it."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.asked = asyncio.Event()
        self.refusing = asyncio.Event()

    async def send(self, via: str, body: t.SendRequest) -> t.SendResult:
        self.asked.set()
        if self.me == DESK:
            await self.refusing.wait()
            raise InstarError("not-awake", "no longer")
        return t.SendResult(key="k1", state="received", seq=1, topic=body.topic, handled_by=self.me)


def machine(net: Net, name: str) -> tuple[Forwarding, FakeAuthority, Holder]:
    authority, holder = FakeAuthority(name), Holder(name)
    authority.set(DESK, 1)
    members = FakeMembers("desk", "mini")
    api = cast(HolderApi, holder)
    return Forwarding(api, net.node(name), authority, members, PatientClock()), authority, holder


@pytest.mark.parametrize("where", [DESK, MINI])
async def test_a_message_that_waited_out_a_handoff_goes_to_the_new_holder_without_a_pause(where: str) -> None:
    net = Net()
    machines = {name: machine(net, name) for name in (DESK, MINI)}
    forwarding, _, _ = machines[where]
    body = t.SendRequest("42", "hello", "k1")
    sending = asyncio.create_task(forwarding.perform(SEND, body=body))
    async with asyncio.timeout(5):
        await machines[DESK][2].asked.wait()
        for _, authority, _ in machines.values():
            authority.set(MINI, 2)
        machines[DESK][2].refusing.set()
        assert (await sending).handled_by == MINI
