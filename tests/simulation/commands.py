"""What persons have a simulated machine do: hand over, let go, move the hub, force it awake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar_node.coordination.record import HubPlace

if TYPE_CHECKING:
    from tests.simulation.machine import Machine


def hand_over(machine: Machine, successor: str) -> None:
    """The last step of a handoff: stop for good, then tell the successor."""
    lease, own = machine.lease, machine.lease.holding
    if (
        own is None
        or not lease.may_act(machine.now())
        or lease.open is not None
        or successor not in own.others
    ):
        return
    assert own.version is not None
    machine.world.say(f"{machine.name} hands over to {successor}")
    if lease.baton:
        if not machine.copy.caught_up(successor):
            return
        record = lease.next_record(
            reason="handoff", at="", nonce=machine.world.nonce(), state="closed", successor=successor
        )
        machine.world.note("baton closed")
        _give_up(machine, own.version)
        machine.perform(machine.coordinator.begin(record, "close", machine.now()))
    else:
        _give_up(machine, own.version)
        target = machine.world.by_name[successor].index
        if not machine.world.send(machine.index, target, on_token, machine.name, own.version):
            machine.world.note("token lost")
    machine.step()


def _give_up(machine: Machine, version: str) -> None:
    machine.lease.cease(version)
    machine.persist(machine.now())
    machine.look(machine.now())


def on_token(machine: Machine, source: str, version: str) -> None:
    """A yield token arrives, perhaps late."""
    if not machine.lease.accept_token(version, source):
        machine.world.note("token too late")
    machine.step()


def release(machine: Machine) -> None:
    """A node that ends lets the lease go; an embedded one keeps it."""
    lease, own = machine.lease, machine.lease.holding
    machine.coordinator.eligible = False
    if own is None or lease.baton or lease.open is not None:
        return
    assert own.version is not None
    record = lease.next_record(reason="released", at="", nonce=machine.world.nonce(), state="released")
    _give_up(machine, own.version)
    machine.perform(machine.coordinator.begin(record, "release", machine.now()))
    machine.step()


def move(machine: Machine, place: HubPlace) -> None:
    """Close the register in favour of another one."""
    lease, own = machine.lease, machine.lease.holding
    if own is None or not lease.may_act(machine.now()) or lease.open is not None or place == lease.hub:
        return
    assert own.version is not None
    machine.world.note(
        "moved to the own disk"
        if not place.url
        else "moved to another hub"
        if place.tip is None
        else "moved back to an earlier hub"
    )
    record = lease.moving_record(place, reason="move", at="", nonce=machine.world.nonce())
    _give_up(machine, own.version)
    machine.perform(machine.coordinator.begin(record, "close", machine.now()))
    machine.step()


def force(machine: Machine) -> None:
    """A person vouches for everybody else, or chooses this machine's line in a split brain."""
    lease = machine.lease
    if lease.known is None or (lease.open is not None and lease.durable.evidence is None):
        return
    register = machine.world.register_of(machine, lease.hub)
    if machine.hub_delay(register) is None:
        return
    healing = lease.durable.evidence is not None
    machine.world.say(f"{machine.name} {'goes on from its line' if healing else 'is forced awake'}")
    machine.world.note("split brain healed" if healing else "forced awake")
    if register.url and register.value is not None:
        if lease.durable.evidence is None or lease.ends_dispute(register.value.record):
            lease.learn(register.value, machine.now())
        if healing and lease.durable.evidence is None:
            machine.world.say(f"{machine.name} finds it healed")
            return
    forced = lease.force_record(at="", nonce=machine.world.nonce())
    lease.heal()
    send = machine.coordinator.begin(forced, "contend", machine.now())
    send.swap.expected = register.value.version if register.value is not None else None
    machine.perform(send)
    machine.step()
