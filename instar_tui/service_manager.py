"""Services of the person's own session: a systemd user unit, or a launchd agent. No root is needed.

A home has one service; its name carries a digest of the home's path, except for the usual home.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec

from instar_node.errors import InstarError
from instar_node.storage.home import Home

STOP_WITHIN_S = 15
"""What a node has for handing over and ending."""


class ServiceState(msgspec.Struct):
    """Where the service is written, and how it stands."""

    name: str
    file: str
    installed: bool
    running: bool


class ServiceManager(Protocol):
    """One home's service. Every method raises ``service-failed`` with what the system said."""

    def install(self) -> ServiceState: ...
    def uninstall(self) -> ServiceState: ...
    def status(self) -> ServiceState: ...


def manager_for(home: Home) -> ServiceManager:
    """The service manager of this system. Raises ``no-service-manager``."""
    if sys.platform == "darwin":
        return Launchd(home)
    if shutil.which("systemctl") is not None:
        return Systemd(home)
    raise InstarError(
        "no-service-manager",
        "there is neither systemd nor launchd on this system",
        f"let whatever starts programs here run: {' '.join(daemon_command(home))}",
    )


def daemon_command(home: Home) -> list[str]:
    """The daemon of a home, with this very interpreter."""
    return [sys.executable, "-m", "instar_tui", "--daemon", "--home", str(home.path)]


class Systemd:
    """``~/.config/systemd/user/instar-tui.service``."""

    def __init__(self, home: Home) -> None:
        self._home = home
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self._name = f"instar-tui{_suffix(home)}.service"
        self._file = folder / "systemd" / "user" / self._name

    def install(self) -> ServiceState:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(self._unit(), encoding="utf-8")
        self._ask("daemon-reload")
        self._ask("enable", "--now", self._name)
        return self.status()

    def uninstall(self) -> ServiceState:
        if self._file.exists():
            self._ask("disable", "--now", self._name)
            self._file.unlink()
            self._ask("daemon-reload")
        return self.status()

    def status(self) -> ServiceState:
        ran = _run(["systemctl", "--user", "is-active", "--quiet", self._name])
        return ServiceState(self._name, str(self._file), self._file.exists(), ran.returncode == 0)

    def _unit(self) -> str:
        command = " ".join(_quoted(word) for word in daemon_command(self._home))
        return (
            "[Unit]\n"
            "Description=instar-tui: the mesh node of this machine\n"
            "After=network-online.target\n\n"
            "[Service]\n"
            f"ExecStart={command}\n"
            "KillMode=mixed\n"
            f"TimeoutStopSec={STOP_WITHIN_S}\n"
            "Restart=on-failure\n"
            "RestartSec=2\n\n"
            "[Install]\n"
            "WantedBy=default.target\n"
        )

    def _ask(self, *arguments: str) -> None:
        _must(
            ["systemctl", "--user", *arguments],
            "is there a user session? After logging in over ssh as another user: loginctl enable-linger",
        )


class Launchd:
    """``~/Library/LaunchAgents/tui.instar.plist``."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._label = f"tui.instar{_suffix(home)}"
        self._file = Path.home() / "Library" / "LaunchAgents" / f"{self._label}.plist"
        self._domain = f"gui/{os.getuid()}"

    def install(self) -> ServiceState:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._loaded():
            self._ask("bootout", f"{self._domain}/{self._label}")
        self._file.write_bytes(plistlib.dumps(self._agent()))
        self._ask("bootstrap", self._domain, str(self._file))
        return self.status()

    def uninstall(self) -> ServiceState:
        if self._loaded():
            self._ask("bootout", f"{self._domain}/{self._label}")
        self._file.unlink(missing_ok=True)
        return self.status()

    def status(self) -> ServiceState:
        return ServiceState(self._label, str(self._file), self._file.exists(), self._loaded())

    def _agent(self) -> dict[str, object]:
        return {
            "Label": self._label,
            "ProgramArguments": daemon_command(self._home),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ExitTimeOut": STOP_WITHIN_S,
            "ProcessType": "Background",
        }

    def _loaded(self) -> bool:
        return _run(["launchctl", "print", f"{self._domain}/{self._label}"]).returncode == 0

    def _ask(self, *arguments: str) -> None:
        _must(["launchctl", *arguments], "log in on the machine's own screen once, then try again")


def _suffix(home: Home) -> str:
    usual = home.path == Home.default().path
    return "" if usual else "-" + sha256(str(home.path).encode()).hexdigest()[:8]


def _quoted(word: str) -> str:
    """A word of ``ExecStart`` (systemd.service(5)): quoted, with its own specifiers and variables escaped."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the system's own programs, words of ours
        command, capture_output=True, text=True, timeout=60, check=False
    )


def _must(command: list[str], hint: str) -> None:
    ran = _run(command)
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip() or f"exit status {ran.returncode}"
        raise InstarError("service-failed", f"{' '.join(command[:3])}: {said}", hint)
