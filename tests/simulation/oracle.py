"""What must hold after every step of the world. It sees real time and everything at once."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from instar_node.coordination.record import GENERATION, KnownRecord, LeaseRecord, generation

if TYPE_CHECKING:
    from tests.simulation.hub import Register
    from tests.simulation.machine import Machine
    from tests.simulation.world import World


class Violation(AssertionError):  # noqa: N818 - the word for a promise that was broken
    """The world did something that the lease promises never to happen."""


class Oracle:
    """The judge of one world.

    ``lied`` is set once the hub was rewound; from then on two machines may act until they meet. ``forced``
    once a person vouched for machines: then machines of different generations may act until they meet.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.lied = False
        self.highest_acted = 0
        self._highest_of: dict[str, int] = {}
        """The highest epoch in which somebody acted, by the origin of its line."""
        self.line = ""
        """Origin of the first line of the highest generation."""
        self._records: dict[str, LeaseRecord] = {}
        """Every record that ever was in a register, by version."""
        self._follower: dict[str, str] = {}
        """Of each record the one that follows it in its generation."""
        self._written: dict[str, int] = {}
        """When it was written, real time."""
        self.acknowledged: set[int] = set()
        self._from_bench: set[int] = set()
        """Epochs that began with a takeover from the bench."""
        self.alarms = 0
        self.changes = 0
        """Epochs in which somebody acted."""

    def fork(self, world: World) -> Oracle:
        """The same judge for an equal world that goes its own way."""
        twin = copy.copy(self)
        twin._world = world
        twin.acknowledged, twin._from_bench = set(self.acknowledged), set(self._from_bench)
        twin._follower = dict(self._follower)
        twin._highest_of = dict(self._highest_of)
        twin._records, twin._written = dict(self._records), dict(self._written)
        return twin

    def fail(self, what: str) -> None:
        """Stop the world."""
        self._world.say(f"VIOLATION: {what}")
        raise Violation(what)

    # -- who acts ------------------------------------------------------------------------------------

    def on_acting(self, machine: Machine, epoch: int, until: int) -> None:
        """``machine`` may act in ``epoch`` until real time ``until``."""
        world = self._world
        assert machine.lease.own is not None
        machine.line = line = machine.lease.own.record.origin
        for other in world.machines:
            if (
                other is not machine
                and other.acting_until > world.t
                and not self._may_both(other, epoch, line)
            ):
                self.fail(f"{machine.name} acts in epoch {epoch} while {other.name} acts, too")
        if generation(epoch) > generation(self.highest_acted):
            self.line = line
        highest = self._highest_of.get(line, 0)
        if epoch < highest and not self.lied:
            self.fail(f"{machine.name} acts in epoch {epoch} after epoch {highest}")
        self._highest_of[line] = max(highest, epoch)
        if epoch != machine.acting_epoch:
            self.changes += 1
            world.say(f"{machine.name} acts in epoch {epoch}")
            self._check_knowledge(machine, epoch)
        self.highest_acted = max(self.highest_acted, epoch)
        machine.acting_epoch, machine.acting_until = epoch, until

    def _may_both(self, other: Machine, epoch: int, line: str) -> bool:
        return self.lied or generation(other.acting_epoch) != generation(epoch) or other.line != line

    def _excused(self, epoch: int, line: str) -> bool:
        """Whether this line was outranked, or split from another, by the hub or by a person."""
        return self.lied or generation(epoch) != generation(self.highest_acted) or line != self.line

    def on_effect(self, machine: Machine, epoch: int) -> None:
        """``machine`` starts something that is seen outside: takes a message in, or acknowledges one."""
        if machine.acting_until <= self._world.t or machine.acting_epoch != epoch:
            self.fail(f"{machine.name} starts an effect of epoch {epoch} in which it may not act")

    # -- rows ----------------------------------------------------------------------------------------

    def on_acknowledged(self, machine: Machine, row: int) -> None:
        """A row was acknowledged: whoever may come next without coming from the bench must know it."""
        world = self._world
        own = machine.lease.own
        assert own is not None
        self.on_effect(machine, own.record.epoch)
        if self._excused(own.record.epoch, own.record.origin):
            return  # a person vouched that this machine does not run: its rows come when it is met
        current = world.register_of(machine, own.record.hub).value
        if current is not None and generation(current.record.epoch) == generation(own.record.epoch):
            for name in current.record.electorate:
                if row not in world.by_name[name].copy.known:
                    self.fail(f"row {row} was acknowledged, but {name} of the electorate does not know it")
        self.acknowledged.add(row)

    def _check_knowledge(self, machine: Machine, epoch: int) -> None:
        missing = self.acknowledged - machine.copy.known
        if not missing:
            return
        if epoch in self._from_bench or epoch % GENERATION == 0 or self._excused(epoch, machine.line):
            # From the bench or by force it says itself whose rows may be missing; what it lacks may be lost.
            self.acknowledged -= missing
            return
        self.fail(f"{machine.name} acts in epoch {epoch} without acknowledged rows {sorted(missing)[:5]}")

    # -- the register --------------------------------------------------------------------------------

    def record(self, version: str | None) -> LeaseRecord | None:
        """The record of a version that was in a register."""
        return None if version is None else self._records.get(version)

    def on_landing(self, register: Register, new: KnownRecord) -> None:
        """A swap is about to be applied."""
        self._records[new.version] = new.record
        self._written[new.version] = self._world.t
        if self.lied:
            return
        self._check_chain(new)
        old = register.value
        if old is None or not register.url or generation(new.record.epoch) != generation(old.record.epoch):
            return
        before, after = old.record, new.record
        if before.state == "closed" and not _comes_back(before, after):
            self.fail(f"{after.holder} writes into a closed register")
        if before.state != "closed" and after.prev != old.version:
            self.fail(f"{after.order} of {after.holder} does not follow the record it replaces")

    def _check_chain(self, new: KnownRecord) -> None:
        """Each record is followed by one other, in whatever register. Epochs rise by one, or to a new
        generation, or by two when a closing was declined."""
        after = new.record
        before = self.record(after.prev)
        if before is None:
            if after.prev is not None or after.epoch != 1:
                self.fail(f"{after.order} of {after.holder} follows nothing")
            return
        if generation(after.epoch) != generation(before.epoch):
            if after.epoch % GENERATION:
                self.fail(f"a generation begins with epoch {after.epoch}")
            return
        assert after.prev is not None
        follower = self._follower.setdefault(after.prev, new.version)
        if follower != new.version and not self._world.forgives_evidence():
            self.fail(f"{after.order} of {after.holder} is the second record that follows {before.order}")
        declined = before.state == "closed" and before.successor not in (None, after.holder)
        rises = (2,) if declined else (0, 1) if before.state == "held" else (1,)
        if before.holder == after.holder and before.moves:
            rises = (1,)
        risen = after.epoch - before.epoch
        if risen not in rises or after.serial - before.serial != max(1, risen):
            self.fail(f"{after.order} follows {before.order} in the register")
        if after.epoch == before.epoch:
            if after.holder != before.holder:
                self.fail(f"{after.holder} writes in the epoch of {before.holder}")
            return
        self._check_takeover(before, after)

    def _check_takeover(self, before: LeaseRecord, after: LeaseRecord) -> None:
        if ({*before.benched} - {after.holder}) & {*after.electorate}:
            self.fail("a benched machine is put into the electorate by a takeover")
        if after.holder not in before.electorate:
            self._check_outsider(before, after)
            self._from_bench.add(after.epoch)
        elif before.epoch in self._from_bench and self.highest_acted < before.epoch:
            self._from_bench.add(after.epoch)  # whoever came from the bench has not acted yet

    def _check_outsider(self, before: LeaseRecord, after: LeaseRecord) -> None:
        """Who comes from the bench comes late, for in-sync machines go first, and says what it lacks."""
        if after.holder not in before.benched:
            self.fail(f"{after.holder} takes the lease over and is no member")
        assert after.prev is not None
        if self._world.t - self._written[after.prev] < before.bench_ttl_ms * 1_000:
            self.fail(f"{after.holder} takes over from the bench before bench_ttl is over")
        if not {*before.electorate} - {after.holder} <= {*after.incomplete}:
            self.fail(f"{after.holder} comes from the bench and claims to have every row")

    def on_evidence(self, machine: Machine, evidence: str) -> None:
        """A machine stopped for evidence of a split brain: there must have been one."""
        self._world.say(f"{machine.name} stops: {evidence}")
        self._world.note("stopped for evidence of a split brain")
        self.alarms += 1
        if not self.lied and not self._world.forgives_evidence():
            self.fail(f"false alarm of {machine.name}: {evidence}")

    def on_stored(self, before: KnownRecord | None, after: KnownRecord | None) -> None:
        """Durable state was written."""
        if before is not None and (after is None or after.record.order < before.record.order):
            self.fail("the highest (epoch, serial) stored falls")


def _comes_back(closed: LeaseRecord, after: LeaseRecord) -> bool:
    """Whether the lease moves back to a register that it left earlier."""
    return closed.moves and after.hub is not None and closed.hub != after.hub
