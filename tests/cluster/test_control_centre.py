"""The program that people start, in a terminal of its own, over real nodes."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.build import SEAM
from instar_node.storage.home import Home
from tests.cluster.harness import Cluster, wait_for
from tests.terminal import Terminal
from tests.unit.lease_store_support import fake_ssh


def started(home: Path, *arguments: str, **environment: str) -> Terminal:
    """``instar-tui`` on a home."""
    return Terminal("-m", "instar_tui", "--home", str(home), *arguments, **environment)


def test_a_fresh_home_is_awake_at_epoch_1_and_tells_the_steps_to_a_second_machine(tmp_path: Path) -> None:
    with started(tmp_path / "home", "--listen", "127.0.0.1:0") as centre:
        centre.shows(
            "AWAKE", "epoch 1", "Three steps to the second machine", "press p", "instar join http://"
        )
        centre.shows("Only this computer reaches this address", "instar-tui --listen 0.0.0.0:7707")
        api = BlockingNodeApi(Home(tmp_path / "home"))
        assert (api.health().role, api.health().epoch) == ("awake", 1)
        assert api.lease().hub.kind == "embedded"
        centre.process.send_signal(signal.SIGTERM)
        assert centre.ends() == 0
        assert centre.is_whole()
    assert not Home(tmp_path / "home").api_json.exists()


def test_sigterm_to_a_control_centre_that_embeds_the_awake_node_hands_over(cluster: Cluster) -> None:
    desk, mini = cluster.machine("desk", hub=None).start(), cluster.machine("mini", hub=None)
    wait_for(desk.is_awake)
    cluster.join(desk, mini)
    mini.start()
    cluster.wait_in_sync(desk, [mini])
    assert mini.cli("wakeup").returncode == 0
    assert desk.stop() == 0
    with started(desk.home.path) as centre:
        centre.shows("mini", "standby")
        wait_for(lambda: desk.id in mini.api.lease().electorate)
        assert desk.cli("wakeup").returncode == 0
        centre.shows("AWAKE", "epoch 3")
        centre.process.send_signal(signal.SIGTERM)
        assert centre.ends() == 0
        assert centre.is_whole()
    wait_for(mini.is_awake)
    assert mini.api.health().epoch == 4


def test_a_control_centre_beside_a_daemon_attaches_and_leaves_it_running(cluster: Cluster) -> None:
    desk = cluster.machine("desk", hub=None).start()
    wait_for(desk.is_awake)
    with started(desk.home.path) as centre:
        centre.shows("AWAKE", "attached")
        centre.process.send_signal(signal.SIGTERM)
        assert centre.ends() == 0
        assert centre.is_whole()
    assert desk.is_awake()


def test_two_control_centres_on_one_daemon_show_the_same_pairing(cluster: Cluster) -> None:
    desk = cluster.machine("desk", hub=None).start()
    wait_for(desk.is_awake)
    with started(desk.home.path) as first, started(desk.home.path) as second:
        first.shows("AWAKE", "attached")
        second.shows("AWAKE", "attached")
        first.type(b"p")
        first.shows("attempts ●●●")
        code = desk.api.pair_view().code
        assert code is not None
        second.type(b"p")
        second.shows("attempts ●●●", f"--code {code}")
        first.shows(f"--code {code}")
        wrong = code[:-1] + str((int(code[-1]) + 1) % 10)
        stranger = cluster.machine("stranger", hub=None)
        url = desk.api.pair_view().url
        assert url is not None
        assert stranger.cli("join", url, "--code", wrong).returncode == 1
        for centre in (first, second):
            centre.shows("attempts ●●○", "2 attempts left")
        mini = cluster.machine("mini", hub=None)
        assert mini.cli("join", url, "--code", code, "--nickname", "mini").returncode == 0
        for centre in (first, second):
            centre.shows("mini has joined as a standby", desk.api.machines().machines[1].fingerprint)


def test_a_daemon_that_hangs_is_waited_for_and_one_that_dies_is_found_again(cluster: Cluster) -> None:
    desk = cluster.machine("desk", hub=None).start()
    wait_for(desk.is_awake)
    with started(desk.home.path) as centre:
        centre.shows("AWAKE", "attached")
        desk.freeze()
        centre.shows("the node has not answered for", "◌ was AWAKE", "no answer")
        centre.type(b"2")
        centre.shows("fingerprint")  # the screens go on
        desk.thaw()
        centre.shows("◆ AWAKE")
        desk.kill()
        centre.shows("no contact with the node", "◌ was AWAKE")
        centre.type(b"3")
        centre.shows("founded")
        desk.start()
        centre.shows("◆ AWAKE", no="no contact")


def test_a_control_centre_says_that_its_daemon_was_updated_under_it(cluster: Cluster, tmp_path: Path) -> None:
    installed = tmp_path / "build.json"

    def install(version: str) -> None:
        installed.write_text(json.dumps({"version": version, "protocol": [1, 1]}))

    install("1.0")
    desk = cluster.machine("desk", hub=None)
    desk.environment = {SEAM: str(installed)}
    wait_for(desk.start().is_awake)
    with started(desk.home.path, **desk.environment) as centre:
        centre.shows("AWAKE", "attached")
        install("1.1")
        assert "this control centre" not in centre.text()
        updated = desk.cli("update")
        assert updated.returncode == 0, updated.stderr
        centre.shows("the node runs 1.1 now, this control centre 1.0: q leaves it; start it again", "AWAKE")
        centre.type(b"q")
        assert centre.ends() == 0
    install("1.2")
    with started(desk.home.path, **desk.environment) as centre:
        centre.shows("this control centre is 1.2, the node still runs 1.1")


def test_a_peer_that_hangs_leaves_the_keys_alive_and_the_failure_is_explained(cluster: Cluster) -> None:
    desk, mini = cluster.pair_up("desk", "mini", configure=lambda machine: machine.configure(ttl_ms=9_000))
    with started(desk.home.path) as centre:
        centre.shows("AWAKE", "● mini")
        mini.freeze()
        centre.type(b"h")
        centre.shows("handing off to mini  … ")  # nothing was heard of it yet
        centre.type(b"5")
        centre.shows("No conversation yet")
        centre.shows("✕ handing off to mini")
        assert desk.is_awake()
        centre.type(b"2")
        centre.shows("○ offline")
        mini.thaw()
        centre.shows("● standby")


def test_a_slow_hub_is_waited_for_while_the_screens_go_on(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = 'eval "$command"'
    monkeypatch.setenv("GIT_SSH_COMMAND", fake_ssh(tmp_path, serve))
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "nas.git")], check=True)
    cluster.hub = f"ssh://nas{tmp_path / 'nas.git'}"
    desk, _ = cluster.pair_up("desk", "mini", configure=lambda machine: machine.configure(ttl_ms=9_000))
    with started(desk.home.path) as centre:
        centre.shows("AWAKE", "● mini", "✔ reachable")
        fake_ssh(tmp_path, f"sleep 0.7; {serve}")
        centre.type(b"h")
        centre.shows("handing off to mini")
        centre.type(b"2")
        centre.shows("fingerprint", "handing off to mini")
        centre.shows("mini is awake, epoch 2", "● standby")
