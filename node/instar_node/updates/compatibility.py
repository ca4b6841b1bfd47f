"""Which machines are held back: nothing is handed to them, taken over by them, or run on them. Pure."""

from __future__ import annotations

from instar_node.build import Build, overlap, spoken


def held_back(machine: Build | None, awake: Build | None) -> str | None:
    """Why a machine is held back, measured by the awake one; ``None`` when it is not, or nobody knows yet.

    The awake machine is the measure for all others, so that every machine names the same ones.
    """
    if machine is None or awake is None or overlap(machine.protocol, awake.protocol):
        return None
    return (
        f"held back: version {machine.version} speaks protocol {spoken(machine.protocol)}, "
        f"the awake machine's {awake.version} speaks {spoken(awake.protocol)}"
    )
