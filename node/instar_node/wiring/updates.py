"""Building what brings this machine, and the mesh, to another version."""

from __future__ import annotations

from collections.abc import Callable

from instar_node.api.parts import Base, HandoffParts, UpdateParts
from instar_node.storage.home import Home
from instar_node.updates.local_update import LocalUpdate
from instar_node.updates.restart_handshake import Restart, UpdateRestartHandshake
from instar_node.updates.updater import Updater

FILE_NAME = "restart-handshake.json"


def build_updates(
    home: Home, base: Base, restart: Callable[[], None] | None, handoff: Callable[[], HandoffParts]
) -> UpdateParts:
    """The updater of this node; what the last restart into another version came to is found out here."""
    handshake = UpdateRestartHandshake(home.machine / FILE_NAME)
    _tell(base, handshake.verify(base.build.version))
    local = LocalUpdate(
        build=base.build,
        handshake=handshake,
        command=base.config.update.command,
        restart=restart,
        clock=base.clock,
    )

    async def hand_off(machine: str) -> str:
        outcome = await handoff().sentinel.hand_off(machine)
        return "" if outcome.outcome == "awake" else outcome.reason or outcome.outcome

    updater = Updater(
        local=local,
        hand_off=hand_off,
        mesh=base.mesh,
        members=base.registry,
        authority=base.lease,
        clock=base.clock,
        events=base.events,
    )
    return UpdateParts(updater, local, handshake)


def _tell(base: Base, restart: Restart | None) -> None:
    if restart is None or restart.state == "pending":
        return
    if restart.state == "done":
        base.events.publish("update", f"runs {restart.expected} since the update from {restart.previous}")
    else:
        base.events.publish(
            "update",
            f"the restart into {restart.expected} did not take: this is {base.build.version}",
            attempts=restart.attempts,
        )
