"""What goes wrong, and when: one fault after another, at random, until the world is healed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar_node.coordination.record import HubPlace
from tests.simulation import commands

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.world import World

SECOND = 1_000_000


class Nemesis:
    """Breaks things, and mends each after a while. ``stop`` ends it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kinds = [
            (fault, getattr(self, "_" + fault.replace(" ", "_").replace("-", "_")))
            for fault in world.settings.faults
        ]
        self._moves = 0
        self._stopped = False
        self._next()

    def stop(self) -> None:
        """No more faults; what is broken is mended by ``heal``."""
        self._stopped = True

    def _next(self) -> None:
        if self._kinds:
            self._world.at(int(self._world.rng.expovariate(1 / self._world.settings.pause)), self._strike)

    def _strike(self) -> None:
        if not self._stopped:
            _, strike = self._world.rng.choice(self._kinds)
            strike(self._world.rng.choice(self._world.machines))
            self._next()

    def _for(self, longest: int) -> int:
        """How long a fault lasts: often short, sometimes longer than a ttl."""
        return int(self._world.random() ** 2 * longest * SECOND)

    # -- machines ------------------------------------------------------------------------------------

    def _crash(self, machine: Machine, longest: int = 30) -> None:
        if machine.up:
            machine.crash()
            self._world.at(self._for(longest), self._start, machine)

    def _long_crash(self, machine: Machine) -> None:
        self._crash(machine, 2 * self._world.settings.bench_ttl // SECOND)

    def _left_to_the_bench(self, machine: Machine) -> None:
        """A machine is benched for silence; then all those in sync are gone for longer than its wait."""
        ttl = self._world.settings.ttl
        self._isolate(machine, 3 * ttl)
        self._world.at(5 * ttl // 2, self._only_the_bench_lives, machine)

    def _only_the_bench_lives(self, machine: Machine) -> None:
        holder = self._holder()
        if self._stopped or holder is None or holder is machine:
            return
        record = holder.lease.own.record if holder.lease.own is not None else None
        if record is not None and machine.name in record.benched:
            for name in record.electorate:
                one = self._world.by_name[name]
                if one.up:
                    one.crash()
                    self._world.at(2 * self._world.settings.bench_ttl, self._start, one)

    def _start(self, machine: Machine) -> None:
        if not machine.up:
            machine.boot()

    def _suspend(self, machine: Machine) -> None:
        if machine.up and not machine.asleep:
            machine.suspend()
            self._world.at(self._for(25), machine.resume, machine.boots)

    # -- network -------------------------------------------------------------------------------------

    def _one_way_cut(self, machine: Machine) -> None:
        other = self._world.rng.choice(self._world.machines)
        if other is not machine:
            self._world.note("cut in one direction")
            self._set_cut(machine, other, True)
            self._world.at(self._for(40), self._set_cut, machine, other, False)

    def _isolation(self, machine: Machine) -> None:
        self._isolate(machine, self._for(60))

    def _isolate(self, machine: Machine, duration: int) -> None:
        if len(self._world.machines) > 1:
            self._world.note("machine isolated")
        for other in self._world.machines:
            if other is not machine:
                for one, two in ((machine, other), (other, machine)):
                    self._set_cut(one, two, True)
                    self._world.at(duration, self._set_cut, one, two, False)

    def _set_cut(self, source: Machine, target: Machine, cut: bool) -> None:
        world = self._world
        world.say(f"{source.name} -> {target.name} {'cut' if cut else 'open'}")
        world.cut[source.index][target.index] = cut
        if cut:
            source.compared_with.discard(target.name)
            target.compared_with.discard(source.name)
        else:
            world.greet(source, target)

    # -- hubs ----------------------------------------------------------------------------------------

    def _hub_away(self, machine: Machine) -> None:
        for hub in self._world.hubs.values():
            hub.away = True
            self._world.note("hub gone")
            self._world.say(f"{hub.url} is away")
            self._world.at(self._for(60), self._back, hub.url)

    def _back(self, url: str) -> None:
        self._world.hubs[url].away = False
        self._world.say(f"{url} is back")

    def _hub_cut(self, machine: Machine) -> None:
        self._world.hub_cut[machine.index] = True
        self._world.say(f"{machine.name} does not reach the hub")
        self._world.at(self._for(40), self._reach, machine)

    def _reach(self, machine: Machine) -> None:
        self._world.hub_cut[machine.index] = False

    def _hub_slow(self, machine: Machine) -> None:
        """Often the holder has something to write just then."""
        for hub in self._world.hubs.values():
            self._world.note("hub slow")
            hub.slowness = self._world.rng.choice((1, 8, 20, 40)) * SECOND
            self._world.at(5 * SECOND + self._for(60), self._quick, hub.url)
        if self._world.random() < 0.7:
            self._slow_standby(machine)

    def _race(self, machine: Machine) -> None:
        """A holder that nobody hears benches the others by a slow hub, while they wait and take over."""
        holder = self._holder()
        if holder is not None and not holder.lease.baton:
            self._isolate(holder, 4 * self._world.settings.ttl + self._for(20))
            self._hub_slow(machine)

    def _quick(self, url: str) -> None:
        self._world.hubs[url].slowness = 0

    def _rewind(self, machine: Machine) -> None:
        for hub in self._world.hubs.values():
            if len(hub.values) > 3:
                self._world.oracle.lied = True
                hub.rewind(self._world.rng.randint(1, 3))

    # -- people --------------------------------------------------------------------------------------

    def _holder(self) -> Machine | None:
        for machine in self._world.machines:
            if machine.up and not machine.asleep and machine.lease.may_act(machine.now()):
                return machine
        return None

    def _handoff(self, machine: Machine) -> None:
        """Sometimes the way between them breaks just then."""
        holder = self._holder()
        if holder is not None and holder is not machine:
            roll = self._world.random()
            if roll < (
                0.4 if holder.lease.baton else 0.2
            ):  # a token does not arrive, or nobody hears how a closing was answered
                one, other = (machine, holder) if holder.lease.baton else (holder, machine)
                self._set_cut(one, other, True)
                self._world.at(self._for(20), self._set_cut, one, other, False)
            elif roll < 0.6:
                self._suspend(machine)
            commands.hand_over(holder, machine.name)

    def _release(self, machine: Machine) -> None:
        holder = self._holder()
        if holder is not None:
            commands.release(holder)
            self._world.at(self._for(3), self._end, holder, holder.boots)

    def _end(self, machine: Machine, boots: int) -> None:
        if machine.boots == boots and machine.up and not self._stopped:
            self._crash(machine, 20)

    def _slow_standby(self, machine: Machine) -> None:
        holder = self._holder()
        if holder is not None:
            holder.coordinator.on_slow(machine.name)
            holder.step()

    def _expel(self, machine: Machine) -> None:
        holder = self._holder()
        if holder is not None and holder is not machine:
            wishes = holder.coordinator.membership.wishes
            wishes.expel.add(machine.name)
            self._world.removed.add(machine.name)
            for other in self._world.machines:
                other.coordinator.membership.wishes.admit.discard(machine.name)
            holder.step()
            self._world.at(self._for(40), self.readmit, machine)

    def readmit(self, machine: Machine) -> None:
        """A machine that was removed joins again."""
        self._world.removed.discard(machine.name)
        for other in self._world.machines:
            if other is not machine:
                other.coordinator.membership.wishes.expel.discard(machine.name)
                other.coordinator.membership.wishes.admit.add(machine.name)
                if other.up and not other.asleep:
                    other.step()

    def _move(self, machine: Machine) -> None:
        holder = self._holder()
        if holder is not None:
            self._moves += 1
            roll = self._world.random()
            earlier = self._left_earlier(holder) if roll < 0.5 else None
            if earlier is not None:
                commands.move(holder, earlier)
            else:
                commands.move(holder, HubPlace("" if roll < 0.7 else f"hub{self._moves}", str(self._moves)))
            if self._world.random() < 0.4:
                self._world.at(int(self._world.random() * 200_000), self._end, holder, holder.boots)

    def _left_earlier(self, holder: Machine) -> HubPlace | None:
        """A hub that the lease moved away from and that answers: it still holds what closed it."""
        present = self._world.register_of(holder, holder.lease.hub)
        for hub in self._world.hubs.values():
            if hub is not present and not hub.away and hub.value is not None and hub.value.record.moves:
                return HubPlace(hub.url, "again", hub.value.version)
        return None

    def _force(self, machine: Machine) -> None:
        if machine.up and not machine.asleep and not machine.lease.may_act(machine.now()):
            commands.force(machine)
