"""Grants on their way to the log: given at once, entered with or before what the run comes to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from instar_node.delivery import steps
from instar_node.delivery.log import ReplicatedLog
from instar_node.delivery.rows import Grant, MessageRow

log = logging.getLogger("instar.delivery")


class _NotNeededError(Exception):
    """A grant needs no entry of its own: what its run came to carries it."""


class _Granting:
    """A grant on its way to the log. What a run came to is entered with its grant, which needs no entry of
    its own when that is there first: an agent that answers at once costs one entry less."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.ended = False


class Grants:
    """The grants that this machine gives. Belongs to the event loop."""

    def __init__(self, ledger_log: ReplicatedLog, require: Callable[[int], None]) -> None:
        """``require(epoch)`` raises when this machine may not act in that epoch now."""
        self._log = ledger_log
        self._require = require
        self._last = Grant()
        self._under_way: dict[str, _Granting] = {}
        """Newest grants that are not on disk yet, by key."""

    def give(self, row: MessageRow, epoch: int) -> Grant:
        """A grant above all that were ever given in this epoch, and any of this message. Its entry is not
        waited for; an answer of the same turn of the loop spares it."""
        newest = max(self._last, row.grant)
        self._last = grant = Grant(epoch, newest.n + 1 if newest.epoch == epoch else 1)
        self._under_way[row.key] = granting = _Granting(grant)
        asyncio.get_running_loop().call_soon(self._enter, row.key, granting)
        return grant

    def newest(self, row: MessageRow) -> Grant:
        """The newest grant of a message, in the log or not."""
        granting = self._under_way.get(row.key)
        return row.grant if granting is None else max(row.grant, granting.grant)

    @contextmanager
    def ending(self, key: str, grant: Grant) -> Iterator[None]:
        """While what a run came to goes to the log, its grant needs no entry of its own. Raises
        ``stale-grant`` when a newer one was given."""
        granting = self._under_way.get(key)
        if granting is not None:
            if grant < granting.grant:
                raise steps.stale_grant(key)
            granting.ended = True
        try:
            yield
        finally:
            self._forget(key, granting)

    def _enter(self, key: str, granting: _Granting) -> None:
        """Enter a grant, unless its run has ended at once or does so before the next write."""
        grant = granting.grant

        def allowed() -> None:
            if granting.ended:
                raise _NotNeededError
            self._require(grant.epoch)

        if not granting.ended:
            future = self._log.submit(lambda tx: steps.begin(tx, grant.epoch, key, grant), allowed)
            future.add_done_callback(partial(self._entered, key, granting))

    def _entered(self, key: str, granting: _Granting, future: asyncio.Future[MessageRow]) -> None:
        if not granting.ended:
            self._forget(key, granting)
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, _NotNeededError):
            log.info("granting %s failed: %s", key, error)

    def _forget(self, key: str, granting: _Granting | None) -> None:
        if granting is not None and self._under_way.get(key) is granting:
            del self._under_way[key]
