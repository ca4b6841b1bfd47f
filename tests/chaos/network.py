"""The wires between the machines: every tunnel runs through a TCP proxy that can be cut, stalled and slowed.

A machine announces the address of its *door* (``node.urls``). Who dials is found from the kernel's socket
table, so that each pair of machines, in each direction, has a wire of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 64 * 1024


@dataclass
class Wire:
    """One direction between two machines. A stalled one keeps what is sent, and delivers it when it heals, as
    TCP does over a lossy path; a cut one breaks every connection of the pair."""

    cut: bool = False
    delay_s: float = 0.0
    flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.flowing.set()


class Network:
    """All wires and doors of one run. Everything but ``Wire`` attributes belongs to the event loop."""

    def __init__(self, pids: Callable[[], dict[str, int]]) -> None:
        """``pids()`` gives the process of each running machine by nickname."""
        self._pids = pids
        self._wires: dict[tuple[str, str], Wire] = {}
        self._servers: list[asyncio.Server] = []
        self._open: dict[frozenset[str], set[asyncio.StreamWriter]] = {}

    async def door(self, name: str, port: int) -> str:
        """Open the door of a machine that listens on ``port``; returns the URL to announce."""

        async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await self._carry(name, port, reader, writer)
            writer.close()

        server = await asyncio.start_server(enter, "127.0.0.1", 0)
        self._servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Shut all doors."""
        for server in self._servers:
            server.close()

    # -- faults -----------------------------------------------------------------------------------------

    async def cut(self, one: str, other: str) -> None:
        """Break every connection between two machines; new ones are refused."""
        for pair in ((one, other), (other, one)):
            self.wire(*pair).cut = True
        for writer in self._open.pop(frozenset((one, other)), set()):
            writer.transport.abort()

    async def stall(self, source: str, target: str) -> None:
        """Nothing gets from ``source`` to ``target`` any more, though the other way it does: half open."""
        self.wire(source, target).flowing.clear()

    async def delay(self, source: str, target: str, seconds: float) -> None:
        """Everything from ``source`` to ``target`` takes so much longer."""
        self.wire(source, target).delay_s = seconds

    async def heal(self, machines: Iterable[str]) -> None:
        """Make all wires between these machines whole."""
        names = set(machines)
        for pair, wire in self._wires.items():
            if names.issuperset(pair):
                wire.cut, wire.delay_s = False, 0.0
                wire.flowing.set()

    def wire(self, source: str, target: str) -> Wire:
        """The wire of one direction."""
        return self._wires.setdefault((source, target), Wire())

    # -- carrying ---------------------------------------------------------------------------------------

    async def _carry(
        self, target: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        source = owner_of(writer.get_extra_info("peername")[1], self._pids())
        if source is None:  # not one of the machines: a joiner, say
            source = "a stranger"
        if self.wire(source, target).cut:
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        both = self._open.setdefault(frozenset((source, target)), set())
        both |= {writer, inner_writer}
        try:
            there = asyncio.create_task(_pump(reader, inner_writer, self.wire(source, target)))
            back = asyncio.create_task(_pump(inner_reader, writer, self.wire(target, source)))
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            there.cancel()
            back.cancel()
        finally:
            both -= {writer, inner_writer}
            inner_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            if wire.delay_s:
                await asyncio.sleep(wire.delay_s)
            await wire.flowing.wait()
            writer.write(chunk)
            await writer.drain()


def owner_of(port: int, pids: dict[str, int]) -> str | None:
    """Which of these processes owns the loopback TCP socket with this local port (Linux)."""
    inode = _inode_of(port)
    if inode is None:
        return None
    for name, pid in pids.items():
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path) == f"socket:[{inode}]":
                        return name
    return None


def _inode_of(port: int) -> str | None:
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted:
            return fields[9]
    return None
