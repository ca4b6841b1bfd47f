"""The main job, step by step, as a person runs it: pair, look, send, watch, move, end."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster, Machine, wait_for

AGENT = """\
import json, os, sys
asked = json.load(sys.stdin)
with open({runs!r}, "a") as runs:
    given = {{"topic": os.environ["INSTAR_TOPIC"], "epoch": os.environ["INSTAR_EPOCH"], **asked}}
    runs.write(json.dumps(given) + "\\n")
print(f"{{len(asked['history'])}} lines before {{asked['message']['text']!r}}")
"""
"""A small real agent: notes what it was given, and answers with how much it knows of the conversation."""


def with_agent(machine: Machine) -> Path:
    """Let a machine run the agent above; returns the file with one line a run."""
    runs, program = machine.home.path / "runs.jsonl", machine.home.path / "agent.py"
    program.write_text(AGENT.format(runs=str(runs)))
    machine.configure(
        agent=f'[agent]\nkind = "command"\ncommand = {json.dumps([sys.executable, str(program)])}\n'
    )
    return runs


def runs_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def a_pair(cluster: Cluster, hub: str | None) -> tuple[Machine, Machine]:
    """Two machines that run the agent, ``desk`` awake and ``mini`` in sync."""
    desk, mini = cluster.machine("desk", hub=hub), cluster.machine("mini", hub=hub)
    for machine in (desk, mini):
        with_agent(machine)
    desk.start()
    wait_for(desk.is_awake)
    cluster.join(desk, mini)
    mini.start()
    cluster.wait_in_sync(desk, [mini])
    return desk, mini


def shown(machine: Machine, *command: str) -> Any:
    """What a command prints with ``--json``."""
    ran = machine.cli(*command, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_wrong_code_costs_an_attempt_and_the_fourth_try_fails_whatever_it_says(cluster: Cluster) -> None:
    desk, mini = cluster.machine("desk", hub=None).start(), cluster.machine("mini", hub=None)
    wait_for(desk.is_awake)
    view = shown(desk, "pair", "--no-wait")
    assert view["attempts_left"] == 3
    wrong = "AFRAID-MOM-6433" if view["code"] != "AFRAID-MOM-6433" else "AFRAID-MOM-6434"
    for left in (2, 1, 0):
        refused = mini.cli("join", view["url"], "--code", wrong)
        assert refused.returncode == 1
        assert "code" in refused.stderr
        assert desk.api.pair_view().attempts_left == left
    assert desk.api.pair_view().state == "locked"
    right = mini.cli("join", view["url"], "--code", view["code"])
    assert right.returncode == 1
    assert "instar pair" in right.stderr  # the way out
    assert len(desk.api.machines().machines) == 1
    again = shown(desk, "pair", "--no-wait")
    assert mini.cli("join", again["url"], "--code", again["code"]).returncode == 0
    assert [m.role for m in desk.api.machines().machines if not m.is_self] == ["standby"]


@pytest.mark.parametrize("hub", [None, "path"], ids=["embedded", "path"])
def test_both_machines_tell_the_same_truth(cluster: Cluster, hub: str | None) -> None:
    desk, mini = a_pair(cluster, hub)
    wait_for(lambda: mini.api.lease().electorate == desk.api.lease().electorate)
    for machine, role, state in ((desk, "awake", "held"), (mini, "standby", "observed")):
        lease = shown(machine, "lease")
        assert (lease["holder"], lease["holder_nickname"], lease["state"]) == (desk.id, "desk", state)
        assert set(lease["electorate"]) == {desk.id, mini.id}
        assert (lease["epoch"], lease["benched"]) == (1, [])
        assert 0 < lease["valid_for_ms"] <= lease["ttl_ms"]
        assert [row["epoch"] for row in lease["history"]] == [1]
        assert (lease["if_lost"]["next"] == mini.id) == (hub is not None)
        assert (lease["if_lost"].get("why_not") is None) == (hub is not None)
        machines = {row["machine_id"]: row for row in shown(machine, "machines")["machines"]}
        assert {m: row["role"] for m, row in machines.items()} == {desk.id: "awake", mini.id: "standby"}
        assert all(row["online"] and row["electorate"] for row in machines.values())
        assert [row["nickname"] for row in machines.values() if row["is_self"]] == [machine.nickname]
        status = shown(machine, "status")
        assert (status["me"]["machine_id"], status["health"]["role"]) == (machine.id, role)
        assert status["health"]["epoch"] == status["lease"]["epoch"] == 1
        assert machine.nickname in machine.cli("status").stdout
    evidence = wait_for(lambda: shown(desk, "lease")["evidence"])
    assert [row["machine_id"] for row in evidence] == [mini.id]


def test_a_message_is_answered_once_wherever_it_is_sent_and_both_know_it(cluster: Cluster) -> None:
    desk, mini = a_pair(cluster, None)
    runs = desk.home.path / "runs.jsonl"
    first = desk.cli("send", "42", "hello", "--key", "k1", "--wait")
    assert first.stdout == "0 lines before 'hello'\n", first.stderr
    second = mini.cli("send", "42", "and again", "--key", "k2", "--wait")
    assert second.stdout == "2 lines before 'and again'\n", second.stderr
    assert desk.cli("send", "42", "hello", "--key", "k1", "--wait").stdout == first.stdout
    assert mini.cli("send", "42", "hello", "--key", "k1", "--wait").stdout == first.stdout
    other = mini.cli("send", "42", "something else", "--key", "k1")
    assert other.returncode == 1
    assert "k1" in other.stderr
    assert [run["message"]["text"] for run in runs_in(runs)] == ["hello", "and again"]
    assert [(run["topic"], run["epoch"]) for run in runs_in(runs)] == [("42", "1"), ("42", "1")]
    assert runs_in(runs)[0]["provenance"]["machine"] == desk.id
    wait_for(lambda: len(mini.replies("42")) == 2)
    logs = [shown(machine, "log", "42")["messages"] for machine in (desk, mini)]
    assert [(row["role"], row["text"]) for row in logs[0]] == [
        ("user", "hello"),
        ("agent", "0 lines before 'hello'"),
        ("user", "and again"),
        ("agent", "2 lines before 'and again'"),
    ]
    assert logs[0] == logs[1]


def test_the_live_tail_shows_how_far_a_standby_is_behind_while_it_happens(cluster: Cluster) -> None:
    desk, mini = a_pair(cluster, "path")
    desk.say("42", "hello")
    wait_for(lambda: len(mini.api.messages("42").messages) == 2)
    settled = wait_for(lambda: [p for p in desk.api.livetail().peers if p.behind.entries == 0])
    assert [peer.machine_id for peer in settled] == [mini.id]
    assert (desk.api.livetail().role, mini.api.livetail().role) == ("source", "standby")
    mini.freeze()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(desk.say, "42", "while it hangs")
        behind = wait_for(lambda: [p.behind for p in desk.api.livetail().peers if p.behind.entries > 0])
        assert behind[0].bytes > 0
        mini.thaw()
        assert waiting.result(30).state
    wait_for(lambda: all(p.behind.entries == 0 for p in desk.api.livetail().peers))
    wait_for(lambda: len(mini.api.messages("42").messages) == 4)


@pytest.mark.parametrize("hub", [None, "path"], ids=["embedded", "path"])
def test_the_awake_role_moves_there_and_back_with_the_conversation(cluster: Cluster, hub: str | None) -> None:
    desk, mini = a_pair(cluster, hub)
    assert desk.cli("send", "42", "one", "--wait").stdout == "0 lines before 'one'\n"
    woken = shown(mini, "wakeup")
    assert (woken["outcome"], woken["epoch"]) == ("awake", 2)
    steps = [step["step"] for step in woken["steps"]]
    assert steps == ["prepare", "tail_synced", "ingress_fenced", "drained", "yielded", "committed"]
    assert (desk.is_awake(), mini.is_awake()) == (False, True)
    assert mini.cli("send", "42", "two", "--wait").stdout == "2 lines before 'two'\n"
    assert runs_in(mini.home.path / "runs.jsonl")[0]["provenance"]["previous_machine"] == desk.id
    assert shown(mini, "wakeup")["outcome"] == "already-awake"
    assert shown(desk, "wakeup")["epoch"] == 3
    assert (desk.is_awake(), mini.is_awake()) == (True, False)
    assert mini.cli("send", "42", "three", "--wait").stdout == "4 lines before 'three'\n"
    assert [len(runs_in(m.home.path / "runs.jsonl")) for m in (desk, mini)] == [2, 1]
    assert [row["epoch"] for row in shown(mini, "lease")["history"]] == [3, 2, 1]


@pytest.mark.parametrize("hub", [None, "path"], ids=["embedded", "path"])
def test_sigterm_hands_over_to_a_standby_in_sync(cluster: Cluster, hub: str | None) -> None:
    desk, mini = a_pair(cluster, hub)
    assert desk.cli("send", "42", "one", "--wait").returncode == 0
    assert desk.stop() == 0
    wait_for(mini.is_awake)
    assert mini.api.health().epoch == 2
    assert mini.cli("send", "42", "two", "--wait").stdout == "2 lines before 'two'\n"
    desk.start()
    wait_for(lambda: desk.api.lease().holder == mini.id)
    assert not desk.is_awake()


def test_sigterm_releases_the_lease_when_nobody_can_take_it_at_once(cluster: Cluster) -> None:
    desk, mini = a_pair(cluster, "path")
    assert mini.stop() == 0
    assert desk.stop() == 0
    mini.start()  # its wait is waived: the register says that nobody holds the lease
    wait_for(mini.is_awake)
    assert mini.api.health().epoch == 2


def test_a_baton_may_be_kept_over_a_restart(cluster: Cluster) -> None:
    desk, mini = cluster.machine("desk", hub=None), cluster.machine("mini", hub=None)
    desk.home.config.write_text(
        desk.home.config.read_text().replace("[node]\n", "[node]\nkeep_baton = true\n")
    )
    desk.start()
    wait_for(desk.is_awake)
    cluster.join(desk, mini)
    mini.start()
    cluster.wait_in_sync(desk, [mini])
    assert desk.stop() == 0
    assert not mini.is_awake()
    desk.start()
    wait_for(desk.is_awake)


@pytest.mark.parametrize(
    ("name", "content", "way_out"),
    [
        ("config.toml", b"[lease]\nttl_ms = 'soon'\n", "ttl_ms"),
        ("config.toml", b"[lesae]\nttl_ms = 6000\n", "lease"),
        ("machine/signing.key", b"not a key", "restore"),
        ("mesh.db", b"SQLite format 3\0" + b"\xff" * 8000, "restore"),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(
    cluster: Cluster, name: str, content: bytes, way_out: str
) -> None:
    desk = cluster.machine("desk", hub=None).start()
    wait_for(desk.is_awake)
    assert desk.stop() == 0
    damaged = desk.home.path / name
    assert damaged.exists()
    damaged.write_bytes(content)
    ran = subprocess.run(
        [sys.executable, "-m", "instar_tui", "--daemon", "--home", str(desk.home.path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert str(damaged) in ran.stderr
    assert way_out in ran.stderr
    assert "Traceback" not in ran.stderr
    assert damaged.read_bytes() == content  # nothing was thrown away
