"""Real nodes as processes on loopback, for tests: start, pair, talk to, stop, kill, freeze.

def test_something(cluster: Cluster) -> None:
    desk, mini = cluster.pair_up("desk", "mini")
    desk.kill()
    wait_for(lambda: mini.api.health().role == "awake", 10)
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from instar_tui.daemon_process import DaemonProcess
from tests.ports import free_port

T = TypeVar("T")

TTL_MS = 1_500
"""Of all machines, unless a test says otherwise: short, so that a failover takes about two seconds."""
WAIT_S = 20.0
START_S = 60.0
"""A start is mostly computing: on a busy computer it takes long, which says nothing about the node."""


def wait_for(predicate: Callable[[], T], within: float = WAIT_S, every: float = 0.02) -> T:
    """The first truthy answer of ``predicate``; an ``InstarError`` or a falsy answer counts as "not yet".

    Raises ``AssertionError`` with the last answer or error when there is none within ``within`` seconds.
    """
    deadline = time.monotonic() + within
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = predicate()
            if last:
                return last  # type: ignore[no-any-return]
        except InstarError as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"not within {within:g} s; last: {last!r}")


class Machine:
    """One node of a test: its home, its process, its API and its command line."""

    def __init__(self, folder: Path, nickname: str, hub: str | None = None) -> None:
        self.home = Home(folder)
        self.nickname = nickname
        self.port = free_port()
        self.hub = hub
        self.host = "127.0.0.1"
        """Address of its host, where it listens for peers."""
        self.urls: tuple[str, ...] = ()
        """``node.urls``: where peers are told to find it; empty for its own address."""
        self.api = BlockingNodeApi(self.home)
        self.environment: dict[str, str] = {}
        """Beside the test's own, for every start and command."""
        self._daemon: DaemonProcess | None = None
        self.home.prepare()
        self.configure()

    def configure(
        self,
        *,
        ttl_ms: int = TTL_MS,
        bench_ttl_ms: int | None = None,
        agent: str = '[agent]\nkind = "echo"\n',
        more: str = "",
    ) -> None:
        """Write ``config.toml``, which counts from the next start; ``agent`` is its whole section."""
        bench = bench_ttl_ms or 10 * ttl_ms
        lease = f"[lease]\nttl_ms = {ttl_ms}\nround_ms = {ttl_ms // 3}\nbench_ttl_ms = {bench}\n"
        node = f'[node]\nnickname = "{self.nickname}"\nlisten = "{self.host}:{self.port}"\n'
        if self.urls:
            node += f"urls = {json.dumps(self.urls)}\n"
        self.home.config.write_text(f"{node}\n{lease}\n{agent}\n{more}", encoding="utf-8")

    @property
    def daemon(self) -> DaemonProcess:
        """The process. Only while started."""
        assert self._daemon is not None, f"{self.nickname} was not started"
        return self._daemon

    @property
    def id(self) -> str:
        """The machine id, as the ``ready`` line tells it."""
        return self.daemon.machine_id

    @property
    def alive(self) -> bool:
        return self._daemon is not None and self._daemon.alive

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> Machine:
        """Start the node and wait for ``ready``; also after ``stop`` and ``kill``."""
        hub = () if self.hub is None else ("--hub", self.hub)
        self._daemon = DaemonProcess(self.home, *hub, *arguments, env={**self.environment, **(env or {})})
        self._daemon.start(START_S)
        return self

    def stop(self) -> int:
        """SIGTERM and wait: it hands off. Returns the exit code."""
        return self.daemon.stop()

    def kill(self) -> None:
        """SIGKILL, agents included: a crash."""
        self.daemon.kill()

    def freeze(self) -> None:
        """SIGSTOP: a process that hangs and does not know it."""
        self.daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.daemon.signal(signal.SIGCONT)

    def cli(self, *arguments: str, stdin: str = "", within: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run ``instar …`` on this home in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", "from instar_tui.cli import main; main()", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
            env={**os.environ, **self.environment, "INSTAR_HOME": str(self.home.path)},
        )

    def say(self, topic: str, text: str, key: str | None = None) -> t.SendResult:
        """Send a message through the API."""
        return self.api.send(t.SendRequest(topic, text, key))

    def replies(self, topic: str) -> list[t.Message]:
        """What the agent has said in a conversation, as this machine knows it."""
        rows: list[t.Message] = []
        while page := self.api.messages(topic, rows[-1].seq if rows else 0, 1_000).messages:
            rows += page
        return [row for row in rows if row.role == "agent"]

    def is_awake(self) -> bool:
        return self.api.health().role == "awake"

    def log(self) -> list[dict[str, Any]]:
        """The node's own log, for failures. A crash or a full disk may leave half a line."""
        path = self.home.logs / "node.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


class Cluster:
    """Machines of one test, in one folder, with a path hub between them; all of them end with the block it is
    used in (``with``), or by ``close``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = str(folder / "hub.git")
        self.machines: list[Machine] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def machine(self, nickname: str, *, hub: str | None = "path") -> Machine:
        """A machine that is not started yet. ``hub``: ``"path"`` for the common one, ``None`` for its own."""
        machine = Machine(self.folder / nickname, nickname, self.hub if hub == "path" else hub)
        self.machines.append(machine)
        return machine

    def join(self, host: Machine, joiner: Machine) -> t.JoinResult:
        """Pair a machine that is not started with one that is awake."""
        from instar_node.joining import join_home

        view = host.api.pair(t.PairRequest())
        assert view.url is not None
        assert view.code is not None
        return asyncio.run(join_home(joiner.home, view.url, view.code, joiner.nickname))

    def pair_up(
        self, *nicknames: str, configure: Callable[[Machine], None] = lambda machine: None
    ) -> list[Machine]:
        """Started, paired machines, the first of them awake, all others in sync with it."""
        machines = [self.machine(nickname) for nickname in nicknames]
        for machine in machines:
            configure(machine)
        first, *others = machines
        first.start()
        wait_for(first.is_awake)
        for other in others:
            self.join(first, other)
            other.start()
        self.wait_in_sync(first, others)
        return machines

    def wait_in_sync(self, awake: Machine, others: Iterable[Machine], within: float = WAIT_S) -> None:
        """Wait until all of ``others`` are in the electorate of ``awake``: any may take over from then on."""
        wanted = {machine.id for machine in others}
        wait_for(lambda: wanted <= set(awake.api.lease().electorate), within)

    def awake(self) -> list[Machine]:
        """The machines that believe to be awake at this moment: never more than one."""
        return [machine for machine in self.machines if machine.alive and machine.is_awake()]

    def close(self) -> None:
        """Kill what still runs. The test is over; nothing has to be handed on."""
        for machine in self.machines:
            if machine.alive:
                machine.kill()
