"""What is known of each paired machine, and the rules about its connection. Pure, but for the events that
wake its dialling task."""

from __future__ import annotations

import asyncio

from instar_node.build import overlap
from instar_node.clock import MICROS_PER_SECOND
from instar_node.contracts import PeerInfo
from instar_node.mesh.frames import Hello
from instar_node.mesh.tunnel import Tunnel

FIRST_DELAY = 0.1
"""Seconds before the second attempt to dial; doubles with each failure."""

LONGEST_DELAY_RECENT = 2.0
"""Bound for a machine heard within ``RECENT_US``."""

LONGEST_DELAY = 15.0
RECENT_US = 600 * MICROS_PER_SECOND

QUIET_US = 5 * MICROS_PER_SECOND
"""Shortest time between two published changes of one peer."""


class Peer:
    """One paired machine, seen from here."""

    def __init__(self, machine_id: str) -> None:
        self.machine_id = machine_id
        self.tunnel: Tunnel | None = None
        self.hello: Hello | None = None
        self.good_url: str | None = None
        """The address that worked last."""
        self.failures = 0
        """Attempts to dial that failed in a row."""
        self.trouble = ""
        """Why the last attempt failed."""
        self.announcer = Announcer()
        self.down = asyncio.Event()
        """Set while there is no tunnel."""
        self.down.set()
        self.kick = asyncio.Event()
        """Set to dial now instead of waiting."""
        self._last_heard: int | None = None

    @property
    def connected(self) -> bool:
        """Whether a tunnel is up now."""
        return self.tunnel is not None and self.tunnel.alive

    @property
    def last_heard(self) -> int | None:
        """When this machine was last heard, microseconds; ``None`` if never in this process."""
        return self.tunnel.last_heard if self.tunnel else self._last_heard

    def up(self, tunnel: Tunnel) -> None:
        """``tunnel`` is the connection from now on."""
        self.tunnel, self.hello = tunnel, tunnel.hello
        self.down.clear()

    def lost(self) -> None:
        """There is no connection any more."""
        self._last_heard = self.last_heard
        self.tunnel = None
        self.down.set()

    def info(self, compatible_with: tuple[int, int]) -> PeerInfo:
        """The public view. A machine never heard counts as compatible until it says otherwise."""
        tunnel, hello = self.tunnel, self.hello
        return PeerInfo(
            machine_id=self.machine_id,
            connected=self.connected,
            since=tunnel.since if tunnel else None,
            last_heard=self.last_heard,
            rtt_us=tunnel.rtt_us if tunnel else None,
            version=hello.version if hello else "",
            protocol=hello.protocol if hello else (0, 0),
            incarnation=hello.incarnation if hello else "",
            compatible=hello is None or overlap(hello.protocol, compatible_with),
        )


class Announcer:
    """Decides which changes of a peer are told to people, so that a flapping one does not flood them."""

    def __init__(self) -> None:
        self._told = False
        self._told_at: int | None = None
        self._online = False

    def changed(self, online: bool, now: int) -> bool:
        """Note a change; ``True`` to tell it now. If ``False``, ask ``settle`` after ``QUIET_US``."""
        self._online = online
        return self.settle(now)

    @property
    def owing(self) -> bool:
        """Whether people have last been told something that is no longer so."""
        return self._online != self._told

    def settle(self, now: int) -> bool:
        """Whether the present state is to be told now."""
        if not self.owing or (self._told_at is not None and now - self._told_at < QUIET_US):
            return False
        self._told, self._told_at = self._online, now
        return True


def dial_delay(failures: int, last_heard: int | None, now: int, jitter: float) -> float:
    """Seconds until the next attempt to dial; ``jitter`` is random in [0, 1)."""
    recent = last_heard is not None and now - last_heard < RECENT_US
    longest = LONGEST_DELAY_RECENT if recent else LONGEST_DELAY
    return float(min(FIRST_DELAY * 2.0 ** min(failures, 16), longest) * (0.5 + jitter / 2))


def supersedes(new: Tunnel, old: Tunnel) -> bool:
    """Which of two tunnels of one pair lives. Both machines come to the same answer.

    The one dialled by the smaller machine id stays, unless it is dead: broken, silent, of an earlier
    incarnation of the peer, or dialled anew by the machine that had dialled it.
    """
    if not old.fresh or new.hello.incarnation != old.hello.incarnation or new.dialler == old.dialler:
        return True
    return new.dialler < old.dialler
