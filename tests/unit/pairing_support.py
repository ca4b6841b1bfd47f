"""Two machines that pair in memory, and a clock whose sleepers wake only when time is advanced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from identity_support import ManualClock, founded, new_identity

from instar_node.errors import InstarError
from instar_node.events import Event, EventHub
from instar_node.identity.keys import MachineIdentity
from instar_node.pairing.exchange import JoinerExchange
from instar_node.pairing.host import PairingHost
from instar_node.pairing.joiner import JoinOutcome, join
from instar_node.pairing.sas import ShortString
from instar_node.pairing.session_store import PairingSessionStore
from instar_node.pairing.wire import Finish, JoinerInfo, PairingGrant, Start, Started

LAN = "http://192.168.1.20:7707"


class SteppedClock(ManualClock):
    """Sleepers wake when ``advance`` has passed their time."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[int, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self.micros + round(seconds * 1e6), woken))
        await woken.wait()

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        for due, woken in self._sleepers:
            if due <= self.micros:
                woken.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self.micros]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Host:
    """A machine of its own mesh that mints codes, and everything it published."""

    def __init__(self, folder: Path, clock: SteppedClock, urls: tuple[str, ...] = (LAN,)) -> None:
        self.folder = folder / "desk" / "machine"
        self.clock = clock
        self.urls = urls
        self.registry = founded(folder, "desk", clock)
        self.identity = new_identity(folder, "desk")
        self.events: list[Event] = []
        self.admitted: list[JoinerInfo] = []
        self.refuse: Exception | None = None
        self.gate: asyncio.Event | None = None
        hub = EventHub(clock)
        hub.listen(self.events.append)
        self.store = PairingSessionStore(self.folder, clock)
        self.pairing = PairingHost(
            self.store,
            self.identity.machine_id,
            clock,
            hub,
            members=self.registry,
            urls=lambda: self.urls,
            admit=self._admit,
        )

    async def _admit(self, joiner: JoinerInfo) -> PairingGrant:
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        self.admitted.append(joiner)
        self.registry.admit(joiner.identity, joiner.nickname, joiner.urls, epoch=1, witness=joiner.witness)
        return PairingGrant(
            self.identity.public,
            "desk",
            self.registry.mesh_id,
            self.registry.records,
            "embedded",
            "",
            b"lease record",
        )

    def mint(self, sas: bool = False) -> str:
        code = self.pairing.mint(sas).code
        assert code is not None
        return code

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        assert url.endswith("/api/pair")
        return await self.pairing.handle(body, "192.168.1.77")

    async def join(
        self,
        code: str,
        identity: MachineIdentity,
        *,
        post: Callable[[str, bytes], Awaitable[tuple[int, bytes]]] | None = None,
        sas: bool = False,
        confirm: Callable[[ShortString], Awaitable[bool]] | None = None,
        url: str = LAN,
    ) -> JoinOutcome:
        return await join(
            url,
            code,
            identity,
            "lap",
            ["http://192.168.1.77:7707", "http://127.0.0.1:7707"],
            post=post or self.post,
            clock=self.clock,
            version="0.1.0",
            sas=sas,
            confirm=confirm,
        )

    async def guess(self, code: str, identity: MachineIdentity) -> int:
        """Join with this code; the status that came back."""
        try:
            await self.join(code, identity)
        except InstarError as error:
            return error.status
        return 200

    def state(self) -> str:
        return self.pairing.view().state


def other_than(code: str) -> str:
    """A well-formed code that is not this one."""
    return code[:-4] + f"{(int(code[-4:]) + 1) % 10_000:04d}"


async def started(host: Host, code: str, identity: MachineIdentity) -> Finish:
    """Begin an exchange and make, but do not send, the message with the guess."""
    exchange = JoinerExchange(code, identity.machine_id)
    start = Start(1, identity.machine_id, exchange.commitment)
    status, body = await host.post("/api/pair", msgspec.json.encode(start))
    assert status == 200, body
    answer = msgspec.json.decode(body, type=Started)
    keys = exchange.receive(answer.session, answer.machine_id, answer.share)
    sealed = keys.seal("joiner", msgspec.json.encode(JoinerInfo(identity.public, "lap")))
    return Finish(answer.session, exchange.share, keys.confirmation("joiner"), sealed)
