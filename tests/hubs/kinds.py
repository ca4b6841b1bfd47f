"""Every kind of hub, each as two machines reach it, with the harm that can be done to it."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.request import Request, urlopen

import pygit2

from instar_node.coordination import git_disk, git_refs
from instar_node.coordination.etcd_lease_store import EtcdLeaseStore
from instar_node.coordination.git_lease_store import LEASE_REF, GitLeaseStore
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import LeaseStore
from instar_node.coordination.witness import WitnessCells, WitnessLeaseStore, WitnessRegister
from instar_node.storage.home import Home
from tests.hubs.proxy import Proxy
from tests.unit.fakes_mesh import Net


class GitKind:
    """A bare repository, reached by ``hub``; what it holds is looked at, and harmed, on its disk."""

    def __init__(self, folder: Path, hub: Hub, repository: Path) -> None:
        self._folder = folder
        self.hub = hub
        self.repository = repository
        if hub.kind != "path" and hub.kind != "embedded" and not repository.exists():
            pygit2.init_repository(str(repository), bare=True)

    def store(self, machine: str = "m-ada") -> GitLeaseStore:
        home = Home(self._folder / machine)
        home.prepare()
        return GitLeaseStore(self.hub, home)

    def names(self) -> set[str]:
        """Everything that is kept beside objects."""
        return {reference.name for reference in pygit2.Repository(str(self.repository)).references.objects}

    def empty(self) -> None:
        pygit2.Repository(str(self.repository)).references.delete(LEASE_REF)

    def spoil(self, content: bytes) -> None:
        repository = pygit2.Repository(str(self.repository))
        tree = repository.TreeBuilder()
        tree.insert("lease.json", repository.create_blob(content), pygit2.enums.FileMode.BLOB)
        person = pygit2.Signature("someone", "s@example.org", 1, 0)
        commit = repository.create_commit(None, person, person, "hello", tree.write(), [])
        repository.references.create(LEASE_REF, commit, force=True)

    @asynccontextmanager
    async def answers_lost(self) -> AsyncIterator[None]:
        """The server dies between the change of the ref and its answer."""
        hook = self.repository / "hooks" / "reference-transaction"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text('#!/bin/sh\n[ "$1" = committed ] && kill -9 $PPID\nexit 0\n')
        hook.chmod(0o755)
        yield
        hook.unlink()

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        hidden = self.repository.rename(self.repository.with_name("away"))
        yield
        hidden.rename(self.repository)


class DiskKind(GitKind):
    """Reached on a disk: no server is in between that could lose an answer."""

    @asynccontextmanager
    async def answers_lost(self) -> AsyncIterator[None]:
        """The disk takes the swap and then hangs for longer than anybody waits."""
        real, goes_on = git_disk.swap_ref, threading.Event()

        def then_hang(*arguments: Any) -> None:
            real(*arguments)
            goes_on.wait(20)

        with (
            mock.patch.object(git_disk, "swap_ref", then_hang),
            mock.patch.object(git_refs, "_DISK_GRACE", 0.3 - 5.0),
        ):
            yield
            goes_on.set()


class WitnessKind:
    """A third machine of an in-memory mesh."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "register"
        self._net = Net()
        for machine in ("m-ada", "m-bea", "nas"):
            self._net.node(machine)
        register = WitnessRegister(self._folder, lambda machine, data, signature: signature == b"signed")
        register.serve(self._net.nodes["nas"])

    def store(self, machine: str = "m-ada") -> WitnessLeaseStore:
        return WitnessLeaseStore(WitnessCells(self._net.nodes[machine], "nas"))

    def names(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()}

    def empty(self) -> None:
        (self._folder / "lease").unlink()

    def spoil(self, content: bytes) -> None:
        (self._folder / "lease").write_bytes(content)

    @asynccontextmanager
    async def answers_lost(self) -> AsyncIterator[None]:
        """The tunnel breaks while the witness does it."""
        nas = self._net.nodes["nas"]
        kind, handler = nas.requests["witness.swap"]

        async def then_break(peer: str, wish: Any) -> Any:
            answer = await handler(peer, wish)
            self._net.cut(peer, "nas")
            return answer

        nas.requests["witness.swap"] = (kind, then_break)
        yield
        nas.requests["witness.swap"] = (kind, handler)
        self._net.rejoin("nas")

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        self._net.isolate("nas")
        yield
        self._net.rejoin("nas")


class EtcdKind:
    """A prefix of a real etcd, behind a proxy that can lose answers."""

    def __init__(self, url: str, prefix: str, proxy: Proxy) -> None:
        self._real = url.replace("etcd://", "http://")
        self._prefix = prefix
        self._proxy = proxy
        self.hub = Hub("etcd", f"etcd://127.0.0.1:{proxy.port}/{prefix}")

    def store(self, machine: str = "m-ada") -> EtcdLeaseStore:
        return EtcdLeaseStore(self.hub)

    def names(self) -> set[str]:
        end = f"{self._prefix}0"  # the character after "/"
        found = self._ask("range", key=f"{self._prefix}/", range_end=end).get("kvs", [])
        return {base64.b64decode(pair["key"]).decode().rpartition("/")[2] for pair in found}

    def empty(self) -> None:
        self._ask("deleterange", key=f"{self._prefix}/lease")

    def spoil(self, content: bytes) -> None:
        self._ask("put", key=f"{self._prefix}/lease", value=content)

    def _ask(self, what: str, **fields: str | bytes) -> dict[str, Any]:
        encoded = {
            name: base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
            for name, value in fields.items()
        }
        request = Request(f"{self._real}/v3/kv/{what}", data=json.dumps(encoded).encode())
        with urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    @asynccontextmanager
    async def answers_lost(self) -> AsyncIterator[None]:
        self._proxy.lose_answers_to = b"/v3/kv/txn"
        yield
        self._proxy.lose_answers_to = None

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        self._proxy.away = True
        yield
        self._proxy.away = False


HubKind = GitKind | WitnessKind | EtcdKind


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables of the git processes for a while."""
    with mock.patch.dict("os.environ", values):
        yield


async def closed(store: LeaseStore) -> None:
    """Close a store and let its connections end."""
    await store.close()
    await asyncio.sleep(0)
