"""``MachinePoolRegistry``: what each machine of the pool has to do, and whether it is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from instar_node.background import Background
from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import AgentRunner, Authority, Members, Mesh
from instar_node.errors import InstarError
from instar_node.pool.messages import LoadNotice
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.placement import Candidate, owner_now

Barred = Callable[[str], InstarError | None]

BACK_FOR_US = 3 * MICROS_PER_SECOND
"""A machine that was away is given back its topics when it has been there for so long."""
NOTICE_EVERY_S = 1.0
"""Load is looked at this often, and told to the others when it changed."""
SLOTS_MIN = 4


class PoolMachine(msgspec.Struct, frozen=True):
    """One machine as the pool sees it. ``load`` is ``running / slots``; 0 for a machine that is away."""

    machine_id: str
    nickname: str
    online: bool
    running: int
    slots: int
    load: float
    topics: int


class _Candidate(NamedTuple):
    """A machine as ``placement.choose_owner`` asks for it."""

    pool: MachinePoolRegistry
    machine_id: str

    @property
    def online(self) -> bool:
        return self.pool.online(self.machine_id)

    @property
    def load(self) -> float:
        return self.pool.load(self.machine_id)

    @property
    def open(self) -> bool:
        return self.pool.may_begin(self.machine_id)

    @property
    def settled(self) -> bool:
        return self.pool.settles_in_us(self.machine_id) == 0


class MachinePoolRegistry:
    """Liveness from this machine's own tunnels, load from what the others say, topics from the placements."""

    def __init__(
        self,
        mesh: Mesh,
        members: Members,
        authority: Authority,
        pins: TopicPlacementPinStore,
        runner: AgentRunner,
        clock: Clock,
        barred: Barred = lambda machine: None,
        agent: str = "",
        slots: int = 0,
        occupies: bool = True,
    ) -> None:
        """``barred(machine)`` says why nothing new may be given to a machine; ``None`` when it may. ``agent``
        is the kind of agent this machine runs: topics only spread over machines with the same kind. ``slots``
        is how many it can run side by side; 0 leaves that to the number of processors. ``occupies``: whether
        a run takes up a slot; an agent that answers in the step in which it is asked never does, and however
        many messages are on their way to it, no other machine would be of help."""
        self.barred = barred
        self.dispatched: Callable[[str], int] = lambda machine: 0
        """How many runs this machine, as holder, has under way on another; newer than what that one told."""
        self._agent = agent
        self._occupies = occupies
        self._mesh = mesh
        self._members = members
        self._authority = authority
        self._pins = pins
        self._runner = runner
        self._clock = clock
        self._slots = slots or max(SLOTS_MIN, 2 * (os.cpu_count() or 1))
        self._told: LoadNotice | None = None
        self._loads: dict[str, LoadNotice] = {}
        self._task = Background("pool-load", self._tell)
        mesh.on_notice(LoadNotice, self._on_load)
        mesh.on_peer(self._on_peer)

    async def start(self) -> None:
        """Begin to tell the others how busy this machine is."""
        self._task.start()

    async def stop(self) -> None:
        """Stop telling."""
        await self._task.stop()

    def online(self, machine_id: str) -> bool:
        """Whether a message can be run there now: here, or on a compatible machine whose tunnel is up."""
        if machine_id == self._mesh.me:
            return True
        info = self._mesh.info(machine_id)
        return self._runs_agents(machine_id) and info is not None and info.connected and info.compatible

    def _runs_agents(self, machine_id: str) -> bool:
        member = self._members.get(machine_id)
        return member is not None and not (member.removed or member.witness)

    def settles_in_us(self, machine_id: str) -> int:
        """How long until a machine that came back has been there long enough; 0 when it has."""
        info = self._mesh.info(machine_id)
        since = info.since if info is not None else None
        return 0 if since is None else max(0, since + BACK_FOR_US - self._clock.now())

    def away(self, machine_id: str) -> str | None:
        """Why nothing can be run there now, as people read it; ``None`` when something can."""
        if self.online(machine_id):
            return None
        if not self._runs_agents(machine_id):
            return "runs no agent: it was removed, or is a witness"
        info = self._mesh.info(machine_id)
        if info is not None and not info.compatible:
            return f"is held back: its version {info.version} cannot work with this one"
        return "is offline; runs there when it is back"

    def candidates(self) -> Sequence[Candidate]:
        """Machines that could run a topic (witnesses cannot)."""
        return [
            _Candidate(self, member.machine_id) for member in self._members.active() if not member.witness
        ]

    def may_begin(self, machine_id: str) -> bool:
        """Whether a machine may be given something new."""
        return self._notice(machine_id).agent == self._agent and self.barred(machine_id) is None

    def load(self, machine_id: str) -> float:
        """Running agents over how many it can run; 0 for a machine that is away."""
        if not self.online(machine_id):
            return 0.0
        notice = self._notice(machine_id)
        dispatched = self.dispatched(machine_id) if self._occupies else 0
        return max(notice.running, dispatched) / notice.slots

    def machines(self) -> list[PoolMachine]:
        """Every active machine, in order of admission."""
        topics = self._topics()
        return [
            self._machine(member.machine_id, member.nickname, topics[member.machine_id])
            for member in self._members.active()
        ]

    def _machine(self, machine_id: str, nickname: str, topics: int) -> PoolMachine:
        notice = self._notice(machine_id)
        online = self.online(machine_id)
        running, load = notice.running if online else 0, self.load(machine_id)
        return PoolMachine(machine_id, nickname, online, running, notice.slots, load, topics)

    def _topics(self) -> Counter[str | None]:
        """How many topics would run on each machine now."""
        holder, epoch = self._authority.holder, self._authority.epoch
        online = {member.machine_id for member in self._members.active() if self.online(member.machine_id)}
        return Counter(
            owner_now(one, holder=holder, epoch=epoch, online=online.__contains__)
            for one in self._pins.placements()
        )

    def _notice(self, machine_id: str) -> LoadNotice:
        if machine_id == self._mesh.me:
            return LoadNotice(sum(1 for _ in self._runner.running()), self._slots, self._agent)
        return self._loads.get(machine_id) or LoadNotice(0, SLOTS_MIN)

    def _on_load(self, peer: str, notice: LoadNotice) -> None:
        self._loads[peer] = notice

    def _on_peer(self, peer: str, up: bool) -> None:
        if up:
            self._mesh.send(peer, self._notice(self._mesh.me))
        else:
            self._loads.pop(peer, None)

    async def _tell(self) -> None:
        while True:
            await self._clock.sleep(NOTICE_EVERY_S)
            notice = self._notice(self._mesh.me)
            if notice != self._told:
                self._told = notice
                for member in self._members.active():
                    if member.machine_id != self._mesh.me:
                        self._mesh.send(member.machine_id, notice)
