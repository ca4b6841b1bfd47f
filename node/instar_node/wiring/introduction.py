"""After the start: the mesh learns of a new name this machine was given, and that it is a witness now."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from instar_node.api.parts import Base
from instar_node.background import Background
from instar_node.errors import InstarError

log = logging.getLogger("instar.node")

RETRY_S = 1.0
FINAL = frozenset({"nickname-taken", "bad-input"})
"""Refusals of a name that asking again does not change."""


class Introduction:
    """Tries until the awake machine has recorded it; then it is over."""

    def __init__(
        self,
        base: Base,
        rename: Callable[[str], Awaitable[object]],
        nickname: str | None,
        settled: Callable[[], None],
        become_witness: Callable[[], Awaitable[None]],
    ) -> None:
        """``nickname`` is one newly asked for, if any, and ``rename`` asks the awake machine for it;
        ``settled`` is called when it was taken or refused. ``become_witness`` asks for that."""
        self._base = base
        self._become_witness = become_witness
        self._rename_to = rename
        self._nickname = nickname
        self._settled = settled
        self._task = Background("introduction", self._run)

    def start(self) -> None:
        """Begin to try."""
        self._task.start()

    async def stop(self) -> None:
        """Try no more; the next start does."""
        await self._task.stop()

    async def _run(self) -> None:
        while not (self._reachable() and await self._introduce()):
            await self._base.clock.sleep(RETRY_S)

    def _reachable(self) -> bool:
        lease = self._base.lease
        if lease.acting_epoch() is not None:
            return True
        return lease.holder is not None and self._base.mesh.connected(lease.holder)

    async def _introduce(self) -> bool:
        """``True`` when there is nothing left to tell."""
        try:
            if self._base.witness and not self._is_witness():
                await self._become_witness()
            await self._rename()
        except InstarError as error:
            own = self._base.registry.get(self._base.me)
            if own is not None and own.removed:
                return True
            log.info("the mesh does not know this machine's new name or role yet: %s", error)
            return False
        return True

    def _is_witness(self) -> bool:
        own = self._base.registry.get(self._base.me)
        return own is not None and own.witness

    async def _rename(self) -> None:
        if self._nickname is None:
            return
        try:
            await self._rename_to(self._nickname)
        except InstarError as error:
            if error.code not in FINAL:
                raise
            self._base.events.publish(
                "alert", f"this machine keeps its name: {error.message}", code=error.code
            )
        self._settled()
