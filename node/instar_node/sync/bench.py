"""Checkpoints while a machine is on the bench.

The awake machine leaves them in the state, and the lease record that it swaps in next vouches for that
commit; a successor that comes from the bench reads them.
"""

from __future__ import annotations

import logging

from instar_node.contracts import Checkpoints
from instar_node.errors import InstarError
from instar_node.sync.core import StateCore
from instar_node.sync.paths import MARKERS

log = logging.getLogger("instar.sync")

SHARE = 6
"""A checkpoint every sixth part of the time that the bench waits: two for each renewal by a swap."""


class BenchCheckpoints:
    """For one machine; used while it is awake."""

    def __init__(self, core: StateCore, checkpoints: Checkpoints) -> None:
        self._core = core
        self._checkpoints = checkpoints
        self._files: dict[str, bytes] = {}
        self._due = 0
        self._taken: int | None = None

    async def files(self) -> dict[str, bytes]:
        """What the state should hold of checkpoints now: none while all are in sync."""
        core = self._core
        if not core.lease.benched:
            self._files, self._due = {}, 0
        elif core.clock.now() >= self._due:
            blocks = await self._checkpoints.blocks()
            self._files = {f"{MARKERS}{name}.json": raw for name, raw in blocks.items()}
            self._due = core.clock.now() + core.lease.bench_ttl_us // SHARE
        return self._files

    def pause_us(self) -> int | None:
        """Until the next one; ``None`` while none is needed."""
        return max(0, self._due - self._core.clock.now()) if self._core.lease.benched else None

    async def take_in(self, epoch: int) -> None:
        """At the beginning of an epoch: learn what the former holder answered, if we may not have its rows.

        Raises ``InstarError``; it is tried again then.
        """
        core, standing = self._core, self._core.copy.standing
        if self._taken == epoch or standing is None:
            return
        if core.lease.incomplete:
            blocks = await core.contents(path for path in core.copy.files if path.startswith(MARKERS))
            writer = await core.worker.run(core.copy.writer_before, epoch)
            try:
                count = await self._checkpoints.take_in(writer or core.mesh.me, blocks)
            except InstarError as error:
                if error.code != "bad-checkpoint":
                    raise
                core.events.publish("alert", f"the last checkpoint says nothing: {error.message}")
            else:
                log.info("%d messages are known to be answered from the last checkpoint", count)
                core.events.publish(
                    "ledger", f"{count} answers are known from the last checkpoint", count=count
                )
        self._taken = epoch
