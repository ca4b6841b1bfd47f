"""Servers for one test run, started when the first test needs them, and every kind of hub as a fixture."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from instar_node.coordination.hub import Hub
from instar_node.storage.home import Home
from tests.hubs import servers
from tests.hubs.kinds import DiskKind, EtcdKind, GitKind, HubKind, WitnessKind
from tests.hubs.proxy import Proxy

KINDS = ("embedded", "path", "pushed path", "http", "witness", "etcd")
SLOW_KINDS = ("ssh",)
"""Only for tests marked ``over_ssh``, unless ``--long`` is given: every connection takes its time."""


class GitServer(NamedTuple):
    """Where its repositories lie, and where they are reached."""

    root: Path
    url: str
    ssh_command: str = ""


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    folder = tmp_path_factory.mktemp("web")
    with servers.web_server(folder) as url:
        yield GitServer(folder / "www", url)


@pytest.fixture(scope="session")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """Reached through one connection that stays open: logging in anew costs half a second every time."""
    folder = tmp_path_factory.mktemp("ssh")
    with servers.ssh_server(folder) as (url, command), _open_connection(url, command) as shared:
        yield GitServer(folder, f"{url}{folder}", shared)


@contextmanager
def _open_connection(url: str, command: str) -> Iterator[str]:
    parts = urlsplit(url)
    with tempfile.TemporaryDirectory(prefix="ssh-") as folder:  # short: a socket has no room for long paths
        shared = f"{command} -o ControlPath={folder}/s"
        arguments = ["-p", str(parts.port), f"{parts.username}@{parts.hostname}"]
        master = subprocess.Popen([*shared.split(), "-M", "-N", *arguments], stdin=subprocess.DEVNULL)
        try:
            wait = f"{shared} -o ConnectionAttempts=1 -O check"
            while subprocess.run([*wait.split(), *arguments], capture_output=True, check=False).returncode:
                assert master.poll() is None, "no connection to the ssh server"
            yield shared
        finally:
            master.terminate()
            master.wait()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.etcd_server(tmp_path_factory.mktemp("etcd")) as url:
        yield url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a ``kind`` of hub once for each."""
    if "kind" in metafunc.fixturenames:
        over_ssh = any(mark.name == "over_ssh" for mark in metafunc.definition.iter_markers())
        slow = SLOW_KINDS if over_ssh or metafunc.config.getoption("--long") else ()
        metafunc.parametrize("kind", [*KINDS, *slow], indirect=True)


@pytest.fixture
async def kind(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[HubKind]:
    """Each kind of hub in turn, set up and without a lease."""
    hub_kind = request.param
    if hub_kind == "etcd":
        url = request.getfixturevalue("etcd")
        async with Proxy(int(urlsplit(url).port or 0)) as proxy:
            etcd_kind = EtcdKind(url, f"mesh-{secrets.token_hex(4)}", proxy)
            await _set_up(etcd_kind)
            yield etcd_kind
        return
    if hub_kind == "witness":
        made: HubKind = WitnessKind(tmp_path)
    elif hub_kind in ("http", "ssh"):
        made = served(hub_kind, request, tmp_path)
    else:
        made = _on_disk(hub_kind, tmp_path)
    await _set_up(made)
    yield made


def served(medium: str, request: pytest.FixtureRequest, folder: Path) -> GitKind:
    """A new repository on one of the git servers."""
    server: GitServer = request.getfixturevalue("web" if medium == "http" else "ssh")
    if server.ssh_command:
        request.getfixturevalue("monkeypatch").setenv("GIT_SSH_COMMAND", server.ssh_command)
    name = f"{secrets.token_hex(4)}.git"
    url = f"{server.url}{'/git' if medium == 'http' else ''}/{name}"
    return GitKind(folder, Hub("remote", url), server.root / name)


def _on_disk(hub_kind: str, folder: Path) -> HubKind:
    path = folder / "hub.git"
    if hub_kind == "embedded":
        home = Home(folder / "m-ada")
        return DiskKind(folder, Hub("embedded", str(home.hub)), home.hub)
    if hub_kind == "path":
        return DiskKind(folder, Hub("path", str(path)), path)
    return GitKind(folder, Hub("remote", str(path)), path)


async def _set_up(made: HubKind) -> None:
    store = made.store()
    await store.create()
    await store.close()
