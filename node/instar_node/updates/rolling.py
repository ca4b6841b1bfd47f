"""The order of an update of the whole mesh: standbys first, a handoff, the awake machine last. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from instar_node.build import Build, Protocols, overlap


class Standing(msgspec.Struct, frozen=True):
    """One other machine as the awake one sees it. ``build`` is ``None`` for one never heard."""

    machine_id: str
    nickname: str
    online: bool
    witness: bool
    in_sync: bool
    build: Build | None


def order(machines: Iterable[Standing]) -> list[Standing]:
    """In which order the others are updated: those that are there, the ones out of sync first.

    What is lost should an update go wrong is then the least useful machine first.
    """
    there = (machine for machine in machines if machine.online)
    return sorted(there, key=lambda one: (one.in_sync, one.nickname.casefold()))


def successor(machines: Iterable[Standing], wanted: str, own: Protocols) -> Standing | None:
    """To which machine the awake role goes before the awake one restarts: in sync, already updated, and able
    to take over from the version that runs here; ``None`` when there is none."""
    for machine in sorted(machines, key=lambda one: one.nickname.casefold()):
        build = machine.build
        if build is None or build.version != wanted or not overlap(build.protocol, own):
            continue
        if machine.online and machine.in_sync and not machine.witness:
            return machine
    return None
