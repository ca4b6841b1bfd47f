"""Keeping the registry's addresses true while machines move.

A machine says where it is reached in the hello of every tunnel, and again when that changes while the tunnel
lives; both are authenticated as that machine. The holder of the lease records what differs from the registry,
and so everybody follows. A loopback address never leaves the host: it is recorded only while every machine of
the mesh is on that host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.background import Background
from instar_node.clock import Clock
from instar_node.contracts import Authority, Member, Mesh
from instar_node.errors import InstarError
from instar_node.identity.addresses import is_loopback, reachable
from instar_node.identity.chain import MAX_URLS, Url
from instar_node.identity.registry import MachineRegistry

log = logging.getLogger("instar.identity")

CHECK_EVERY_S = 10.0
"""How often a machine looks whether its own addresses changed."""

Urls = tuple[str, ...]


class Moved(msgspec.Struct, frozen=True, tag="registry.moved"):
    """One-way: I am reached at these addresses now."""

    urls: Annotated[tuple[Url, ...], Meta(max_length=MAX_URLS)]


class AddressBook:
    """Says where this machine is, and as the holder records where all are.

    Args:
        own: This machine's addresses as they are now; may take a moment (it asks the system).
        heard: What a peer said in its hello; empty when it has not been heard.
    """

    def __init__(
        self,
        mesh: Mesh,
        registry: MachineRegistry,
        authority: Authority,
        clock: Clock,
        own: Callable[[], Urls],
        heard: Callable[[str], Urls],
    ) -> None:
        self._mesh = mesh
        self._registry = registry
        self._authority = authority
        self._clock = clock
        self._own = own
        self._heard = heard
        self._mine: Urls = ()
        self._said: dict[str, Urls] = {}
        self._task = Background("addresses", self._watch)

    def start(self) -> None:
        """Begin to tell, to hear and, as the holder, to record."""
        self._mine = self._own()
        self._mesh.on_notice(Moved, self._on_moved)
        self._mesh.on_peer(self._on_peer)
        self._authority.on_change(self.record)
        self._task.start()

    async def stop(self) -> None:
        """Watch no more."""
        await self._task.stop()

    def record(self) -> None:
        """As the holder: have the registry say where each machine that was heard is reached now."""
        epoch = self._authority.acting_epoch()
        if epoch is None:
            return
        for member in self._registry.active():
            wanted = self._wanted(member)
            if wanted is None or wanted == member.urls:
                continue
            try:
                self._registry.set_urls(member.machine_id, wanted, epoch=epoch)
            except InstarError as error:
                log.warning("the address of %s was not recorded: %s", member.nickname, error.message)
            else:
                log.info("%s is reached at %s now", member.nickname, ", ".join(wanted) or "no address")

    # -- inside -----------------------------------------------------------------------------------------

    def _wanted(self, member: Member) -> Urls | None:
        """What the registry should say of a machine; ``None`` while it has not been heard."""
        is_self = member.machine_id == self._mesh.me
        said = self._mine if is_self else self._said.get(member.machine_id)
        return None if said is None else reachable(said, same_host=self._one_host(member.machine_id))

    def _one_host(self, machine: str) -> bool:
        """Whether every other machine of the mesh is on this machine's host, as far as is known."""
        others = [member for member in self._registry.active() if member.machine_id != machine]
        return bool(others) and all(self._is_here(member.machine_id) for member in others)

    def _is_here(self, machine: str) -> bool:
        if machine == self._mesh.me:
            return any(is_loopback(url) for url in self._mine)
        member = self._registry.get(machine)
        said = self._said.get(machine, member.urls if member else ())
        return any(is_loopback(url) for url in said)

    def _on_peer(self, peer: str, up: bool) -> None:
        if up:
            self._said[peer] = self._heard(peer)
            self.record()

    def _on_moved(self, peer: str, moved: Moved) -> None:
        self._said[peer] = moved.urls
        self.record()

    async def _watch(self) -> None:
        while True:
            self.record()
            await self._clock.sleep(CHECK_EVERY_S)
            urls = await asyncio.to_thread(self._own)
            if urls != self._mine:
                self._mine = urls
                self._tell()

    def _tell(self) -> None:
        """Say where we are now to every machine that has not heard it in a hello."""
        for member in self._registry.active():
            peer = member.machine_id
            if peer != self._mesh.me and self._mesh.connected(peer):
                here = any(is_loopback(url) for url in self._heard(peer))  # said only to one on its own host
                self._mesh.send(peer, Moved(reachable(self._mine, same_host=here)[:MAX_URLS]))
