"""What a drill does with the parts of a running node, one probe for each component."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from instar_node.api.parts import Base, DeliveryParts, HandoffParts, PoolParts, TailParts, VerificationParts
from instar_node.build import overlap, spoken
from instar_node.clock import MICROS_PER_MS
from instar_node.contracts import PeerError
from instar_node.errors import InstarError
from instar_node.identity.keys import verify
from instar_node.storage.home import Home
from instar_node.verification.drill import Probe
from instar_node.verification.messages import ECHO_BYTES, Echo, Echoed
from instar_node.verification.rehearsals import Rehearsals
from instar_node.verification.results import ResultStore
from instar_node.verification.verification import Verification

FILE_NAME = "verification.json"
WITHIN_S = 10.0
"""For each answer of the other machine."""
STALE_CODES = frozenset({"stale-epoch", "not-holder"})
"""How a machine refuses what comes in the name of an epoch that is over."""
RETURN_TRIES = 5
RETURN_PAUSE_S = 0.2


def build_verification(
    home: Home,
    base: Base,
    tail: TailParts,
    delivery: DeliveryParts,
    pool: PoolParts | None,
    handoff: Callable[[], HandoffParts],
) -> VerificationParts:
    """The drills of this node over its own parts; ``handoff`` is asked for when it is first needed."""
    probes = Probes(base, tail, delivery, handoff)
    verification = Verification(
        store=_results(home.machine / FILE_NAME, base),
        probes=probes.table(pool),
        there_and_back=probes.there_and_back,
        held_by=base.lease.holder_of,
        build=base.build,
        sign=lambda purpose, data: base.identity.sign(purpose, base.registry.mesh_id, data),
        mesh=base.mesh,
        members=base.registry,
        authority=base.lease,
        clock=base.clock,
        events=base.events,
    )
    rehearsals = Rehearsals(verification, base.mesh, base.lease, base.clock)
    return VerificationParts(verification, rehearsals)


def _results(path: Path, base: Base) -> ResultStore:
    def signed_by(machine: str, purpose: str, data: bytes, signature: bytes) -> bool:
        member = base.registry.get(machine)
        if member is None or member.removed:
            return False
        return verify(member.signing_public, purpose, base.registry.mesh_id, data, signature)

    return ResultStore(path, signed_by)


class Probes:
    """Each method tries one component with a machine and returns the evidence; it raises what is wrong."""

    def __init__(
        self, base: Base, tail: TailParts, delivery: DeliveryParts, handoff: Callable[[], HandoffParts]
    ) -> None:
        self._base = base
        self._tail = tail
        self._delivery = delivery
        self._handoff = handoff

    def table(self, pool: PoolParts | None) -> Mapping[str, Probe]:
        """Component -> probe. Without the pool nothing is transferred, and that is not tried."""
        probes: dict[str, Probe] = {
            "tunnel": self.tunnel,
            "updates": self.updates,
            "lease": self.lease,
            "livetail": self.livetail,
            "delivery": self.delivery,
            "fencing": self.fencing,
            "handoff": self.handoff,
        }
        if pool is not None:
            probes["transfer"] = lambda machine: self.transfer(pool, machine)
        return probes

    async def tunnel(self, machine: str) -> str:
        began, data = self._base.clock.now(), bytes.fromhex(self._base.clock.token_hex(ECHO_BYTES))
        back = await self._echo(machine, data)
        if back.data != data:
            raise InstarError("echo-differs", "what came back is not what was sent")
        if back.machine_id != machine:
            raise InstarError("echo-differs", f"the machine at the other end calls itself {back.machine_id}")
        return f"{ECHO_BYTES // 1024} KiB there and back in {self._ms(began):.1f} ms"

    async def updates(self, machine: str) -> str:
        back, info = await self._echo(machine, b""), self._base.mesh.info(machine)
        own, other = self._base.build, back.build
        if info is None or (info.version, info.protocol) != (other.version, other.protocol):
            raise InstarError("versions-differ", f"it runs {other.version} and greeted as another version")
        if not overlap(own.protocol, other.protocol):
            raise InstarError(
                "incompatible",
                f"it speaks protocol {spoken(other.protocol)}, this machine {spoken(own.protocol)}",
            )
        common = min(own.protocol[1], other.protocol[1])
        return f"versions {own.version} and {other.version}, protocol {common}"

    async def lease(self, machine: str) -> str:
        began = self._base.clock.now()
        await self._base.lease.ask_one(machine, WITHIN_S)
        return f"promised for epoch {self._base.lease.epoch} in {self._ms(began):.1f} ms"

    async def livetail(self, machine: str) -> str:
        began = self._base.clock.now()
        await self._tail.transport.round_trip(machine, WITHIN_S)
        return f"at entry {self._tail.buffer.head.seq}, acknowledged in {self._ms(began):.1f} ms"

    async def delivery(self, machine: str) -> str:
        began, replication = self._base.clock.now(), self._delivery.replication
        await replication.round_trip(machine, WITHIN_S)
        acked = replication.acked(machine)
        return f"at row {acked.epoch}.{acked.seq}, acknowledged in {self._ms(began):.1f} ms"

    async def fencing(self, machine: str) -> str:
        former = self._base.lease.epoch - 1
        try:
            await self._delivery.replication.offer_stale(machine, former, WITHIN_S)
        except PeerError as error:
            if error.reason != "refused" or error.code not in STALE_CODES:
                raise
            return f"rows of epoch {former} refused: {error.code}"
        raise InstarError("stale-epoch-taken", f"it listened to a holder of epoch {former}, which is over")

    async def transfer(self, pool: PoolParts, machine: str) -> str:
        count = await pool.agreement.compare(machine, WITHIN_S)
        code = await pool.agreement.order_as_former_holder(machine)
        if code not in STALE_CODES:
            raise InstarError("stale-order", f"an order of a former holder was answered with {code}")
        return f"{count} placements are the same; an order of a former holder was refused"

    async def handoff(self, machine: str) -> str:
        began = self._base.clock.now()
        await self._handoff().sentinel.rehearse(machine)
        return f"rehearsed to the acknowledgement in {self._ms(began):.1f} ms"

    async def there_and_back(self, machine: str) -> str:
        """Really hand over, and have the role handed back."""
        lease, parts = self._base.lease, self._handoff()
        before = lease.epoch
        there = await parts.sentinel.hand_off(machine)
        if there.outcome != "awake":
            raise InstarError("handoff-failed", f"not handed over: {there.reason}")
        back = await self._come_back(machine)
        return f"there in {there.took_ms:.0f} ms, back in {back:.0f} ms, epoch {before} to {lease.epoch}"

    async def _come_back(self, machine: str) -> float:
        """Become awake again. The other machine may need a moment to see that its own handoff is over."""
        name = self._base.registry.nickname(machine)
        for left in reversed(range(RETURN_TRIES)):
            try:
                outcome = await self._handoff().wakeup.wakeup()
            except InstarError as error:
                if left:
                    await self._base.clock.sleep(RETURN_PAUSE_S)
                    continue
                raise InstarError(
                    "handoff-failed", f"{name} is awake now and did not hand back: {error.message}"
                ) from error
            if outcome.outcome in ("awake", "already-awake"):
                return outcome.took_ms
        raise InstarError("handoff-failed", f"{name} is awake now: {outcome.reason}")

    async def _echo(self, machine: str, data: bytes) -> Echoed:
        return await self._base.mesh.request(machine, Echo(data), Echoed, within=WITHIN_S)

    def _ms(self, began: int) -> float:
        return (self._base.clock.now() - began) / MICROS_PER_MS
