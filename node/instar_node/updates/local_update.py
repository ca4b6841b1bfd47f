"""Updating this one machine: install, write the intent down, restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from instar_node.build import Build
from instar_node.clock import MICROS_PER_SECOND, Clock, iso
from instar_node.errors import InstarError
from instar_node.updates.installed import install, installed_build
from instar_node.updates.restart_handshake import UpdateRestartHandshake

log = logging.getLogger("instar.updates")

SEEN_FOR_US = 10 * MICROS_PER_SECOND


class LocalUpdate:
    """What this machine runs, what its next start would run, and getting from one to the other."""

    def __init__(
        self,
        *,
        build: Build,
        handshake: UpdateRestartHandshake,
        command: tuple[str, ...],
        restart: Callable[[], None] | None,
        clock: Clock,
        ask_installed: Callable[[], Awaitable[Build]] = installed_build,
    ) -> None:
        """``restart`` ends this node so that it is started anew; ``None`` when nobody would do that."""
        self.build = build
        self.handshake = handshake
        self._command = command
        self._restart = restart
        self._clock = clock
        self._ask_installed = ask_installed
        self._busy = asyncio.Lock()
        self._seen: Build | None = None
        self._seen_at = 0

    async def installed(self) -> Build:
        """What the next start would run, as of a moment ago: asking starts a program. Raises
        ``InstarError("not-installed")``."""
        now = self._clock.now()
        if self._seen is None or now - self._seen_at > SEEN_FOR_US:
            self._seen, self._seen_at = await self._ask_installed(), now
        return self._seen

    async def prepare(self, to: str) -> Build:
        """Install, and return what the next start would run.

        Raises ``InstarError``: ``update-running``, ``not-installed`` (also when it is not version ``to``),
        ``cannot-restart`` when something else is installed than runs and this node cannot start it.
        """
        if self._busy.locked():
            raise InstarError(
                "update-running", "an update is under way on this machine", "wait until it is over"
            )
        async with self._busy:
            await install(self._command)
            installed = await self._ask_installed()
        if to and installed.version != to:
            raise InstarError(
                "not-installed",
                f"version {installed.version} is installed, not {to}",
                "install it there, or set [update] command in config.toml",
                extra={"installed": installed.version},
            )
        if installed != self.build and self._restart is None:
            raise InstarError(
                "cannot-restart",
                "nothing would start this node again",
                "stop it and start it again by hand",
            )
        if installed == self.build:
            self.handshake.forget_failure()
        return installed

    def restart_into(self, installed: Build) -> None:
        """Write the intent down and restart. Raises ``InstarError`` when it cannot be written."""
        assert self._restart is not None, "prepare() has made sure of it"
        self.handshake.intend(installed.version, self.build.version, iso(self._clock.wall()))
        log.info("restarting from version %s into %s", self.build.version, installed.version)
        self._restart()
