"""Hosts of their own for the nodes: Linux network namespaces around a router that also serves the hub.

Each host has one wire to the router, so that the router's firewall can cut any direction of any pair, and any
host from the hub. A thread can live in a namespace, and what it starts or connects to is there too; so each
host has a thread that does everything for its machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
ROUTER = "10.77.0.1"
"""Address of the hub, on the router's own loopback device."""
GIT_PORT = 9418


def why_not() -> str:
    """Why this computer cannot have namespaces; empty when it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in ("ip", "nft", "git") if shutil.which(tool) is None]:
        return f"network namespaces need {' and '.join(missing)}"
    probe = subprocess.run(
        ["ip", "netns", "add", "instar-probe"], capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        return f"no network namespaces here: {probe.stderr.strip()}"
    _run("ip", "netns", "del", "instar-probe")
    return ""


class Host:
    """One network namespace with an address, and a thread that lives in it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._thread = ThreadPoolExecutor(1, name, _enter, (name,))

    def do(self, work: Callable[[], T], within: float = 60.0) -> T:
        """Run ``work`` inside; processes that it starts and connections that it makes are inside too."""
        return self._thread.submit(work).result(within)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


class Lan:
    """Hosts around a router with the hub on it."""

    def __init__(self, prefix: str, names: Iterable[str]) -> None:
        self._prefix = prefix
        self._router = f"{prefix}-router"
        self._git: subprocess.Popen[bytes] | None = None
        self.hosts: dict[str, Host] = {}
        _run("ip", "netns", "add", self._router)
        self._inside("ip", "link", "set", "lo", "up")
        self._inside("ip", "addr", "add", f"{ROUTER}/32", "dev", "lo")
        self._inside("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for number, name in enumerate(names, 1):
            self.hosts[name] = self._host(name, number)

    def _host(self, name: str, number: int) -> Host:
        host, address, gateway = f"{self._prefix}-{name}", f"10.77.{number}.2", f"10.77.{number}.1"
        _run("ip", "netns", "add", host)
        _run(
            "ip",
            "link",
            "add",
            f"to-{name}",
            "netns",
            self._router,
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            host,
        )
        self._inside("ip", "addr", "add", f"{gateway}/24", "dev", f"to-{name}")
        self._inside("ip", "link", "set", f"to-{name}", "up")
        for command in (
            ("ip", "addr", "add", f"{address}/24", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
            ("ip", "link", "set", "lo", "up"),
            ("ip", "route", "add", "default", "via", gateway),
        ):
            _run("ip", "netns", "exec", host, *command)
        return Host(host, address)

    def serve_hub(self, folder: Path) -> str:
        """Serve the repositories in ``folder`` to all hosts; returns the URL of the folder."""
        serve = [
            "git",
            "daemon",
            "--reuseaddr",
            "--export-all",
            "--enable=receive-pack",
            f"--base-path={folder}",
        ]
        command = ["ip", "netns", "exec", self._router, *serve, f"--listen={ROUTER}", str(folder)]
        self._git = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        return f"git://{ROUTER}:{GIT_PORT}"

    def drop(self, *ways: tuple[str, str]) -> None:
        """From now on the router drops exactly what goes these ways, each ``(from, to)``; ``"hub"`` is a
        place too. No way at all heals everything."""
        rules = "\n".join(
            f"ip saddr {self._address(source)} ip daddr {self._address(target)} drop"
            for source, target in ways
        )
        chains = "\n".join(
            f"chain {hook} {{\ntype filter hook {hook} priority 0\n{rules}\n}}"
            for hook in ("forward", "input", "output")
        )
        self._inside("nft", f"table inet cuts\ndelete table inet cuts\ntable inet cuts {{\n{chains}\n}}")

    def _address(self, name: str) -> str:
        return ROUTER if name == "hub" else self.hosts[name].address

    def close(self) -> None:
        """Take everything down."""
        for host in self.hosts.values():
            host.close()
        if self._git is not None:
            self._git.terminate()
            self._git.wait()
        for name in (*(host.name for host in self.hosts.values()), self._router):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", name)

    def _inside(self, *command: str) -> None:
        _run("ip", "netns", "exec", self._router, *command)


@contextlib.contextmanager
def lan(prefix: str, names: Iterable[str]) -> Iterator[Lan]:
    """A network of these hosts, gone afterwards."""
    made = Lan(prefix, names)
    try:
        yield made
    finally:
        made.close()


def _enter(name: str) -> None:
    """Move the calling thread into a namespace (``setns(2)``)."""
    with open(f"/run/netns/{name}", "rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {name}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
