"""The command agent: one JSON object in, the whole stdout out, and nothing left running."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest

from instar_node.clock import SystemClock
from instar_node.config import AgentSettings
from instar_node.contracts import HistoryItem, Provenance, RunRequest, RunResult
from instar_node.delivery.agents.command import CommandAgent, encode_input
from instar_node.delivery.agents.process_identity import identity
from instar_node.delivery.agents.reaper import RunRecords
from instar_node.errors import InstarError

FOREVER = 1 << 62


def forever(key: str) -> int:
    return FOREVER


def request(key: str = "local:42:1", text: str = "hello", topic: str = "42") -> RunRequest:
    return RunRequest(
        key=key,
        topic=topic,
        text=text,
        sender="ada",
        at="2026-01-01T00:00:00.000Z",
        epoch=7,
        n=1,
        history=(HistoryItem("user", "before", "2025-12-31T23:59:59.000Z"),),
        provenance=Provenance("m1", 7, "m0", True),
    )


def agent(tmp_path: Path, code: str, **settings: object) -> CommandAgent:
    script = tmp_path / "agent.py"
    script.write_text(textwrap.dedent(code))
    made = AgentSettings(kind="command", command=(sys.executable, str(script)), **settings)  # type: ignore[arg-type]
    return CommandAgent(
        made, RunRecords(tmp_path / "runs.json"), {"API_KEY": "from-vault"}.get, forever, SystemClock()
    )


async def until(path: Path) -> str:
    """The content of a file that another process is about to write."""
    async with asyncio.timeout(5):
        while not (path.exists() and path.read_text().endswith("\n")):
            await asyncio.sleep(0.01)
    return path.read_text().strip()


def gone(pid: int) -> bool:
    """Whether the process ends within ten seconds."""
    deadline = time.monotonic() + 10
    while identity(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


async def test_the_agent_reads_one_json_object_and_its_stdout_is_the_reply(tmp_path: Path) -> None:
    code = "import sys; print(sys.stdin.read(), end='')"
    result = await agent(tmp_path, code).run(request())
    assert result.outcome == "ok"
    assert json.loads(result.replies[0]) == {
        "topic": "42",
        "message": {
            "key": "1",
            "text": "hello",
            "sender": "ada",
            "at": "2026-01-01T00:00:00.000Z",
        },
        "history": [{"role": "user", "text": "before", "at": "2025-12-31T23:59:59.000Z"}],
        "provenance": {"machine": "m1", "epoch": 7, "previous_machine": "m0", "complete": True},
    }


def test_a_machine_that_goes_on_itself_is_told_of_no_other() -> None:
    same = msgspec.structs.replace(request(), provenance=Provenance("m1", 7, "m1", True))
    assert json.loads(encode_input(same))["provenance"]["previous_machine"] is None
    assert json.loads(encode_input(request()))["provenance"]["previous_machine"] == "m0"


async def test_inner_lines_are_kept_and_only_the_last_line_end_goes(tmp_path: Path) -> None:
    result = await agent(tmp_path, "print('  one\\n\\ntwo')").run(request())
    assert result == RunResult("ok", ("  one\n\ntwo",))


async def test_the_environment_names_the_run_and_keeps_the_nodes_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAR_API_TOKEN", "node-only")
    monkeypatch.setenv("SOME_PASSWORD", "node-only")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    result = await agent(tmp_path, code, env_secrets=("API_KEY",)).run(request())
    seen = json.loads(result.replies[0])
    assert (seen["INSTAR_TOPIC"], seen["INSTAR_KEY"], seen["INSTAR_EPOCH"]) == ("42", "1", "7")
    assert seen["API_KEY"] == "from-vault"
    assert seen["PATH"] == os.environ["PATH"]
    assert "node-only" not in seen.values()


async def test_a_secret_missing_from_the_vault_fails_the_run_naming_it(tmp_path: Path) -> None:
    result = await agent(tmp_path, "print('ran')", env_secrets=("NOPE",)).run(request())
    assert result.outcome == "failed"
    assert "NOPE" in result.error


async def test_a_non_zero_exit_fails_with_the_end_of_stderr(tmp_path: Path) -> None:
    code = "import sys; print('half a reply'); sys.stderr.write('x' * 9000 + 'the reason'); sys.exit(3)"
    result = await agent(tmp_path, code).run(request())
    assert result.outcome == "failed"
    assert "exit status 3" in result.error
    assert result.error.endswith("the reason")
    assert len(result.error) < 4_200


async def test_an_empty_reply_fails(tmp_path: Path) -> None:
    result = await agent(tmp_path, "print('  ')").run(request())
    assert result.outcome == "failed"
    assert "printed nothing" in result.error


async def test_invalid_utf8_is_replaced(tmp_path: Path) -> None:
    result = await agent(tmp_path, "import sys; sys.stdout.buffer.write(b'caf\\xe9!')").run(request())
    assert result == RunResult("ok", ("caf�!",))


async def test_an_agent_that_ignores_stdin_still_answers(tmp_path: Path) -> None:
    long = request(text="x" * 500_000)
    assert await agent(tmp_path, "import os; os.close(0); print('done')").run(long) == RunResult(
        "ok", ("done",)
    )


async def test_a_reply_beyond_the_limit_ends_the_run(tmp_path: Path) -> None:
    code = "import sys\nwhile True: sys.stdout.write('x' * 4096)"
    result = await agent(tmp_path, code, max_output_bytes=10_000).run(request())
    assert result == RunResult("failed", error="the reply is longer than 10000 bytes")


async def test_a_run_past_its_time_is_killed_and_fails(tmp_path: Path) -> None:
    result = await agent(tmp_path, "import time; time.sleep(60)", timeout_s=0.2).run(request())
    assert result == RunResult("failed", error="no reply within 0.2 s")


async def test_a_program_that_is_not_there_fails_with_the_reason(tmp_path: Path) -> None:
    settings = AgentSettings(kind="command", command=("/nowhere/agent",))
    runner = CommandAgent(
        settings, RunRecords(tmp_path / "runs.json"), lambda name: None, forever, SystemClock()
    )
    result = await runner.run(request())
    assert result.outcome == "failed"
    assert "cannot start /nowhere/agent: No such file" in result.error


@pytest.mark.parametrize(("number", "outcome"), [(errno.ENOSPC, "unable"), (errno.EACCES, "failed")])
async def test_a_computer_without_room_is_no_failure_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, outcome: str
) -> None:
    runner = agent(tmp_path, "print('never')")

    async def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(runner, "_start", refused)
    assert await runner.run(request()) == RunResult(
        outcome, error=f"cannot start the agent: {os.strerror(number)}"
    )


STUBBORN = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = "import signal, time; signal.signal(15, 1); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", sleeper])
    with open(sys.argv[0] + ".pids", "w") as file:
        print(os.getpid(), child.pid, file=file)
    time.sleep(60)
"""


async def test_cancelling_kills_the_whole_group_even_one_that_ignores_sigterm(tmp_path: Path) -> None:
    runner = agent(tmp_path, STUBBORN)
    task = asyncio.create_task(runner.run(request()))
    pids = [int(pid) for pid in (await until(tmp_path / "agent.py.pids")).split()]
    assert list(runner.running("42")) == ["local:42:1"]
    assert list(runner.running("43")) == []
    assert runner.cancel("local:42:1")
    assert await task == RunResult("cancelled")
    assert all(gone(pid) for pid in pids)
    assert not runner.cancel("local:42:1")


async def test_a_cancelled_agent_has_a_moment_to_tidy_up(tmp_path: Path) -> None:
    code = """
        import signal, sys, time
        def tidy(*_):
            time.sleep(0.1)
            open(sys.argv[0] + ".tidy", "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, tidy)
        with open(sys.argv[0] + ".ready", "w") as file:
            print("ready", file=file)
        time.sleep(60)
    """
    runner = agent(tmp_path, code)
    task = asyncio.create_task(runner.run(request()))
    await until(tmp_path / "agent.py.ready")
    runner.cancel("local:42:1")
    assert await task == RunResult("cancelled")
    assert (tmp_path / "agent.py.tidy").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_agent_does_not_inherit_pythons_ignored_sigpipe(tmp_path: Path) -> None:
    settings = AgentSettings(kind="command", command=("grep", "SigIgn", "/proc/self/status"))
    runner = CommandAgent(
        settings, RunRecords(tmp_path / "runs.json"), lambda name: None, forever, SystemClock()
    )
    [reply] = (await runner.run(request())).replies
    assert not int(reply.split()[1], 16) & 1 << signal.SIGPIPE - 1


async def test_a_background_child_neither_delays_the_reply_nor_survives_it(tmp_path: Path) -> None:
    code = """
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
    """
    began = time.monotonic()
    result = await agent(tmp_path, code).run(request())
    assert time.monotonic() - began < 10
    assert gone(int(result.replies[0]))


async def test_cancelling_the_task_kills_the_agent(tmp_path: Path) -> None:
    task = asyncio.create_task(agent(tmp_path, STUBBORN).run(request()))
    pids = [int(pid) for pid in (await until(tmp_path / "agent.py.pids")).split()]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(gone(pid) for pid in pids)


async def test_closing_ends_every_run_as_cancelled(tmp_path: Path) -> None:
    runner = agent(tmp_path, "import time; time.sleep(60)")
    runs = [asyncio.create_task(runner.run(request(f"local:42:{i}"))) for i in range(2)]
    await asyncio.sleep(0)
    await runner.close()
    assert [await run for run in runs] == [RunResult("cancelled")] * 2


async def test_one_message_is_not_run_twice_at_the_same_time(tmp_path: Path) -> None:
    runner = agent(tmp_path, "import time; time.sleep(60)")
    first = asyncio.create_task(runner.run(request()))
    await asyncio.sleep(0)
    with pytest.raises(InstarError, match="already works"):
        await runner.run(request())
    await runner.close()
    await first


NODE = """
import asyncio, sys
from pathlib import Path
from instar_node.clock import SystemClock
from instar_node.config import AgentSettings
from instar_node.contracts import Provenance, RunRequest
from instar_node.delivery.agents.command import CommandAgent, encode_input
from instar_node.delivery.agents.reaper import RunRecords
settings = AgentSettings(kind="command", command=(sys.executable, sys.argv[1]))
clock = SystemClock()
end = clock.now() + int(sys.argv[3]) * 1000
runner = CommandAgent(settings, RunRecords(Path(sys.argv[2])), lambda name: None, lambda key: end, clock)
provenance = Provenance("m1", 1, None, True)
asyncio.run(runner.run(RunRequest("local:42:1", "42", "t", "s", "at", 1, 1, (), provenance)))
"""


async def start_node(
    tmp_path: Path, code: str = STUBBORN, may_act_ms: int = 60_000
) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process that runs an agent and may act for so long, and the pids of agent and grandchild."""
    (tmp_path / "agent.py").write_text(textwrap.dedent(code))
    files = (str(tmp_path / "agent.py"), str(tmp_path / "runs.json"))
    node = subprocess.Popen([sys.executable, "-c", NODE, *files, str(may_act_ms)])
    return node, [int(pid) for pid in (await until(tmp_path / "agent.py.pids")).split()]


async def test_agents_die_with_a_node_that_is_killed(tmp_path: Path) -> None:
    node, pids = await start_node(tmp_path)
    node.kill()
    node.wait()
    assert all(gone(pid) for pid in pids)


ESCAPING = """
    import os, subprocess, sys, time
    escape = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True);"
    escape += "time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", escape], stdout=subprocess.PIPE, text=True)
    with open(sys.argv[0] + ".pids", "w") as file:
        print(os.getpid(), child.stdout.readline().strip(), file=file)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
async def test_what_left_the_group_of_an_agent_dies_with_the_node_too(tmp_path: Path) -> None:
    node, pids = await start_node(tmp_path, ESCAPING)
    assert os.getsid(pids[1]) == pids[1]
    node.kill()
    node.wait()
    assert all(gone(pid) for pid in pids)


async def test_an_agent_ends_in_time_although_its_node_hangs(tmp_path: Path) -> None:
    node, pids = await start_node(tmp_path, may_act_ms=3_000)
    node.send_signal(signal.SIGSTOP)
    try:
        assert all(gone(pid) for pid in pids)
    finally:
        node.kill()
        node.wait()


async def test_an_agent_that_may_not_act_at_all_is_ended_at_once(tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text("import time; time.sleep(60)")
    settings = AgentSettings(kind="command", command=(sys.executable, str(script)))
    records, clock = RunRecords(tmp_path / "runs.json"), SystemClock()
    runner = CommandAgent(settings, records, lambda name: None, lambda key: 0, clock)
    async with asyncio.timeout(30):
        assert await runner.run(request()) == RunResult("cancelled")


async def test_a_run_goes_on_while_its_leave_is_renewed_and_ends_as_cancelled_when_it_is_not(
    tmp_path: Path,
) -> None:
    clock, renewed = SystemClock(), 0

    def until(key: str) -> int:
        nonlocal renewed
        renewed += 1
        return (clock.now() if renewed < 10 else began) + 400_000

    began = clock.now()
    script = tmp_path / "agent.py"
    script.write_text("import time; time.sleep(60)")
    settings = AgentSettings(kind="command", command=(sys.executable, str(script)))
    runner = CommandAgent(settings, RunRecords(tmp_path / "runs.json"), lambda name: None, until, clock)
    assert await runner.run(request()) == RunResult("cancelled")
    assert renewed >= 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to identify a group without its leader")
async def test_the_reaper_ends_what_outlived_node_and_launcher(tmp_path: Path) -> None:
    node, pids = await start_node(tmp_path)
    [record] = json.loads((tmp_path / "runs.json").read_text())
    os.kill(node.pid, signal.SIGSTOP)  # so that it cannot clean up after the launcher
    os.kill(record["group"], signal.SIGKILL)
    assert gone(record["group"])
    assert gone(pids[0]), "the agent itself dies with its launcher"
    node.kill()
    node.wait()
    assert identity(pids[1]) is not None
    assert RunRecords(tmp_path / "runs.json").reap() == ["local:42:1"]
    assert all(gone(pid) for pid in pids)


async def test_the_reaper_leaves_a_process_that_merely_got_the_same_number(tmp_path: Path) -> None:
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    try:
        stale = [{"group": bystander.pid, "identity": "another boot:1", "key": "k"}]
        (tmp_path / "runs.json").write_text(json.dumps(stale))
        assert RunRecords(tmp_path / "runs.json").reap() == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_reaper_puts_a_damaged_record_aside_and_starts(tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text('[{"group": "what?"}]')
    assert RunRecords(tmp_path / "runs.json").reap() == []
    assert (tmp_path / "runs.json.damaged").exists()


async def test_records_name_exactly_the_groups_that_run(tmp_path: Path) -> None:
    code = "import sys; print(open(sys.argv[0].replace('agent.py', 'runs.json')).read())"
    result = await agent(tmp_path, code).run(request())
    assert [row["key"] for row in json.loads(result.replies[0])] == ["local:42:1"]
    assert json.loads((tmp_path / "runs.json").read_text()) == []
