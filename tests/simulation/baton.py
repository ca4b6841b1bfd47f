"""Passing the baton in the simulated world, as ``coordination.baton`` does it over the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar_node.coordination.record import KnownRecord

if TYPE_CHECKING:
    from tests.simulation.machine import Machine


def resend(machine: Machine, closing: KnownRecord) -> None:
    """Send our closing to its successor."""
    successor = closing.record.successor
    assert successor is not None
    target = machine.world.by_name[successor].index
    machine.world.send(machine.index, target, on_closing, machine.name, closing)


def on_closing(machine: Machine, source: str, closing: KnownRecord) -> None:
    """The baton arrives: open our own register from it, or refuse it for good."""
    lease, newest = machine.lease, machine.lease.known
    home = machine.world.by_name[source].index
    if newest is not None and newest.record.prev == closing.version and newest.record.holder == machine.name:
        machine.world.note("closing repeated")
        machine.world.send(machine.index, home, on_closing_answer, closing, "opened", newest)
        return
    refusal = "opening" if lease.open is not None else lease.may_open(closing)
    if refusal is None and (machine.full or machine.world.random() < 0.2):
        refusal = "not now"
    if refusal is None:
        lease.learn(closing, machine.now())
        record = lease.opening_record(closing, reason="handoff", at="", nonce=machine.world.nonce())
        machine.perform(machine.coordinator.begin(record, "contend", machine.now()))
    elif refusal == "knows-newer":
        machine.world.note("closing came again after it was settled")
        machine.world.send(machine.index, home, on_closing_answer, closing, "newer", newest)
    elif refusal not in ("opening", "split-brain"):
        machine.world.note("baton declined")
        lease.decline(closing.version)
        machine.persist(machine.now())
        machine.world.send(machine.index, home, on_closing_answer, closing, "declined", newest)
    machine.step()


def on_closing_answer(
    machine: Machine, closing: KnownRecord, outcome: str, newest: KnownRecord | None
) -> None:
    """What became of our closing."""
    lease = machine.lease
    if newest is not None:
        lease.learn(newest, machine.now())
    known = lease.known
    if (
        outcome == "declined"
        and known is not None
        and known.version == closing.version
        and lease.open is None
    ):
        record = lease.reopening_record(reason="declined", at="", nonce=machine.world.nonce())
        machine.perform(machine.coordinator.begin(record, "contend", machine.now()))
    machine.step()
