"""The commands against real nodes, in processes of their own, as people and scripts run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.harness import Cluster, wait_for


def test_a_first_machine_is_awake_and_answers(cluster: Cluster) -> None:
    desk = cluster.machine("desk").start()
    wait_for(desk.is_awake)
    sent = desk.cli("send", "work", "hello", "--wait", "--timeout", "20")
    assert (sent.returncode, sent.stderr) == (0, "")
    assert "hello" in sent.stdout
    log = desk.cli("log", "work", "--json")
    assert [row["role"] for row in json.loads(log.stdout)["messages"]] == ["user", "agent"]


def test_every_reading_command_works_on_a_running_node(cluster: Cluster) -> None:
    desk = cluster.machine("desk").start()
    wait_for(desk.is_awake)
    desk.say("work", "hello")
    lines = "whoami, machines, status, lease, doctor, outbox, log work, placement work, config get"
    for line in lines.split(", "):
        for arguments in (line.split(), [*line.split(), "--json"]):
            ran = desk.cli(*arguments)
            assert (ran.returncode, ran.stderr) == (0, ""), line
            assert ran.stdout, line
    assert json.loads(desk.cli("whoami", "--json").stdout)["machine_id"] == desk.id


def test_sigterm_ends_the_daemon_with_status_0_and_without_a_trace(cluster: Cluster) -> None:
    desk = cluster.machine("desk").start()
    wait_for(desk.is_awake)
    begun = time.monotonic()
    assert desk.stop() == 0
    assert time.monotonic() - begun < 5
    assert not desk.home.api_json.exists()
    assert (desk.home.path / "daemon.stderr").read_text() == ""
    assert desk.cli("status").returncode == 3
    assert desk.cli("whoami").returncode == 0


def test_a_second_node_on_the_same_home_is_refused_naming_the_pid(cluster: Cluster) -> None:
    desk = cluster.machine("desk").start()
    second = subprocess.run(
        [sys.executable, "-m", "instar_tui", "--daemon", "--home", str(desk.home.path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert f"pid {desk.daemon.pid}" in second.stderr
    assert desk.api.health()


def test_two_machines_are_paired_by_commands_alone(cluster: Cluster) -> None:
    desk, mini = cluster.machine("desk").start(), cluster.machine("mini")
    wait_for(desk.is_awake)
    view = json.loads(desk.cli("pair", "--no-wait", "--json").stdout)
    joined = mini.cli("join", view["url"], "--code", view["code"], "--nickname", "mini")
    assert joined.returncode == 0, joined.stderr
    mini.start()
    cluster.wait_in_sync(desk, [mini])
    moved = desk.cli("handoff", "mini", "--json")
    assert moved.returncode == 0, moved.stderr
    assert json.loads(moved.stdout)["holder"] == mini.id
    wait_for(mini.is_awake)
    assert desk.cli("wakeup").returncode == 0
    wait_for(desk.is_awake)


def test_the_daemon_never_loads_the_screens() -> None:
    code = "import sys, instar_tui.daemon\nprint(*{'textual', 'rich.console'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


def test_the_demo_is_a_living_mesh_that_leaves_nothing_behind(tmp_path: Path) -> None:
    folder, pages = tmp_path / "tmp", tmp_path / "pages"
    folder.mkdir()
    with pages.open("w") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "instar_tui", "demo"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb", "TMPDIR": str(folder)},
        )
    try:
        wait_for(
            lambda: demo.poll() is not None or re.search(r"^garden ", pages.read_text(), re.MULTILINE), 60
        )
        assert demo.poll() is None, pages.read_text()
        assert re.search(r"^desk · awake", pages.read_text(), re.MULTILINE)
        pids = [json.loads(path.read_bytes())["pid"] for path in folder.glob("*/*/api.json")]
        assert len(pids) == 3
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(20) == 0
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(30)
    assert list(folder.iterdir()) == []
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
