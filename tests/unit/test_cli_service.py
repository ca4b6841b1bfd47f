"""``instar service``: what is written, and what the system's own service manager is asked."""

from __future__ import annotations

import os
import plistlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from instar_node.errors import InstarError
from instar_node.storage.home import Home
from instar_tui.service_manager import Launchd, Systemd, manager_for
from tests.unit.served import Cli, home_at

FAKE = """#!/bin/sh
echo "$0 $*" >> {asked}
case "$*" in {refused}) echo "{said}" >&2; exit 1;; esac
"""


class Manager:
    """A program that stands where the system's own would, and notes what it is asked."""

    def __init__(self, folder: Path, name: str) -> None:
        self.program = folder / "bin" / name
        self.program.parent.mkdir()
        self._asked = folder / "asked"
        self.refuse("nothing", "")

    def refuse(self, pattern: str, said: str) -> None:
        """Fail calls whose arguments match a shell pattern."""
        self.program.write_text(FAKE.format(asked=self._asked, refused=pattern, said=said))
        self.program.chmod(0o755)

    def asked(self) -> list[str]:
        if not self._asked.exists():
            return []
        lines = self._asked.read_text().splitlines()
        return [line.partition(" ")[2] for line in lines]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    manager = Manager(tmp_path, "systemctl")
    monkeypatch.setenv("PATH", f"{manager.program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "platform", "linux")
    return manager


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(home_at(tmp_path / "a home, 100% mine"), capsys)


def test_the_unit_starts_this_program_on_this_home_and_is_started(cli: Cli, systemctl: Manager) -> None:
    state = cli("service", "install", "--json").json
    unit = Path(state["file"])
    assert (state["installed"], state["running"]) == (True, True)
    assert unit.name.startswith("instar-tui-")
    line = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
    words = [word.replace("%%", "%") for word in shlex.split(line.removeprefix("ExecStart="))]
    assert words == [sys.executable, "-m", "instar_tui", "--daemon", "--home", str(cli.home.path)]
    assert systemctl.asked()[:2] == ["--user daemon-reload", f"--user enable --now {unit.name}"]


def test_uninstalling_stops_it_and_takes_the_file_away_and_twice_is_no_error(
    cli: Cli, systemctl: Manager
) -> None:
    unit = Path(cli("service", "install", "--json").json["file"])
    systemctl.refuse("*is-active*", "")
    assert cli("service", "status").out.startswith(f"{unit.name}: installed, does not run")
    gone = cli("service", "uninstall", "--json").json
    assert (gone["installed"], gone["running"], unit.exists()) == (False, False, False)
    assert f"--user disable --now {unit.name}" in systemctl.asked()
    assert cli("service", "uninstall").code == 0
    assert "not installed" in cli("service", "status").out


def test_what_the_system_refuses_is_told_with_the_way_out(cli: Cli, systemctl: Manager) -> None:
    systemctl.refuse("*enable*", "Failed to connect to bus")
    ran = cli("service", "install", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "service-failed")
    assert "Failed to connect to bus" in ran.err
    assert "enable-linger" in ran.err


def test_two_homes_have_two_services_and_the_usual_home_the_plain_name(
    tmp_path: Path, systemctl: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {Systemd(Home(tmp_path / name)).status().name for name in ("a", "b")}
    assert len(names) == 2
    monkeypatch.setattr(Home, "default", classmethod(lambda cls: Home(tmp_path / "a")))
    assert Systemd(Home(tmp_path / "a")).status().name == "instar-tui.service"


def test_a_launchd_agent_is_written_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launchctl = Manager(tmp_path, "launchctl")
    launchctl.refuse("print*", "no such service")
    monkeypatch.setenv("PATH", f"{launchctl.program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    home = Home(tmp_path / "home")
    state = Launchd(home).install()
    agent = plistlib.loads(Path(state.file).read_bytes())
    assert agent["ProgramArguments"][-2:] == ["--home", str(home.path)]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert any(line.startswith("bootstrap gui/") for line in launchctl.asked())
    assert Launchd(home).uninstall().installed is False


def test_a_system_without_either_is_told_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstarError, match="neither systemd nor launchd") as refused:
        manager_for(Home(tmp_path))
    assert "--daemon" in refused.value.hint


def test_systemd_itself_finds_no_fault_with_the_unit(cli: Cli, systemctl: Manager) -> None:
    try:
        version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("systemd-analyze is not installed here")
    unit = cli("service", "install", "--json").json["file"]
    ran = subprocess.run(
        ["systemd-analyze", "--user", "verify", unit],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(cli.home.path)},
    )
    assert ran.returncode == 0, version.stdout + ran.stderr
