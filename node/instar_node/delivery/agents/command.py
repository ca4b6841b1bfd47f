"""The ``command`` agent: any program that reads one JSON object on stdin and prints its reply."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from instar_node.clock import Clock
from instar_node.config import AgentSettings
from instar_node.contracts import RunRequest, RunResult
from instar_node.delivery.agents.agent_input import encode_input
from instar_node.delivery.agents.environment import SecretLookup, agent_environment
from instar_node.delivery.agents.leash import Leash, Until
from instar_node.delivery.agents.reaper import RunRecords, kill_group
from instar_node.errors import InstarError

log = logging.getLogger("instar.agents")

LAUNCHER = Path(__file__).with_name("launcher.py")
TERM_GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL. Short: a lapsed grant means that another machine is about to start."""
STDERR_TAIL = 4_096
"""Bytes of stderr kept for the error text."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
"""What the system says when it lacks disk, memory, processes or open files: it may have them again later."""
CHUNK = 65_536


class _Run:
    """One process group under way and why it was told to stop, if it was."""

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.process: asyncio.subprocess.Process | None = None
        self.stopped: RunResult | None = None
        self.stderr = bytearray()
        self._killer: asyncio.TimerHandle | None = None

    def stop(self, result: RunResult) -> None:
        """End the run with this result (the first reason counts): SIGTERM now, SIGKILL after the grace."""
        if self.stopped is not None:
            return
        self.stopped = result
        if self.process is not None:
            self._terminate(self.process.pid)

    def started(self, process: asyncio.subprocess.Process) -> None:
        """Take over the process; kills it at once if the run was stopped before it existed."""
        self.process = process
        if self.stopped is not None:
            self._terminate(process.pid)

    def ended(self) -> None:
        """After the launcher is gone: nothing of its group may stay behind."""
        if self._killer is not None:
            self._killer.cancel()
        if self.process is not None:
            kill_group(self.process.pid, signal.SIGKILL)

    def _terminate(self, group: int) -> None:
        kill_group(group, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        self._killer = loop.call_later(TERM_GRACE, kill_group, group, signal.SIGKILL)


class _ExitProtocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Ends what the agent left in its group as soon as it exits.

    ``Process.wait()`` returns only once the pipes are closed too, and a background child holds them open.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._group = cast(asyncio.SubprocessTransport, transport).get_pid()

    def process_exited(self) -> None:
        kill_group(self._group, signal.SIGKILL)
        super().process_exited()


class CommandAgent:
    """Runs the configured command once a message, in a process group of its own.

    Args:
        settings: ``[agent]``: command, timeout, output limit, names of vault secrets to hand over.
        records: Where running groups are put on record for the reaper.
        secret: Looks up a vault secret by name at the time of the run.
        until: Until when a run may go on; it is killed then even when this process hangs.
    """

    def __init__(
        self, settings: AgentSettings, records: RunRecords, secret: SecretLookup, until: Until, clock: Clock
    ) -> None:
        self._settings = settings
        self._records = records
        self._secret = secret
        self._until = until
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, request: RunRequest) -> RunResult:
        """Run the command for one message.

        ``ok`` with its whole stdout (trailing line ends removed, invalid UTF-8 replaced); ``failed`` with the
        end of stderr for a non-zero exit, an empty reply, too much output or a timeout; ``cancelled`` after
        ``cancel`` or ``close``, or when it was no longer allowed to go on.
        """
        if request.key in self._runs:
            raise InstarError("already-running", f"the agent already works on message {request.key}")
        run = self._runs[request.key] = _Run(request)
        self._idle.clear()
        try:
            return await self._run(run)
        finally:
            del self._runs[request.key]
            if not self._runs:
                self._idle.set()

    def needs_history(self, topic: str) -> bool:
        return True

    def acts(self, topic: str) -> bool:
        return True

    def cancel(self, key: str) -> bool:
        run = self._runs.get(key)
        if run is None:
            return False
        run.stop(RunResult("cancelled"))
        return True

    def running(self, topic: str | None = None) -> Iterable[str]:
        return [key for key, run in self._runs.items() if topic is None or run.request.topic == topic]

    async def close(self) -> None:
        """Kill every run and wait until all are gone."""
        for key in list(self._runs):
            self.cancel(key)
        await self._idle.wait()

    async def _run(self, run: _Run) -> RunResult:
        try:
            environment = agent_environment(os.environ, run.request, self._settings.env_secrets, self._secret)
        except InstarError as error:
            return RunResult("failed", error=error.message)
        leash = Leash(run.request.key, self._until, self._clock)
        leash.tell()
        keeping = asyncio.create_task(leash.keep())
        try:
            process = await self._start(leash.lifeline, environment)
            self._records.add(process.pid, run.request.key)
            try:
                run.started(process)
                return await self._converse(run, process, leash)
            finally:
                run.ended()
                self._records.remove(process.pid)
        except OSError as error:
            outcome = "unable" if error.errno in NO_ROOM else "failed"
            return RunResult(outcome, error=f"cannot start the agent: {error.strerror}")
        finally:
            keeping.cancel()
            leash.close()

    async def _start(self, lifeline: int, environment: dict[str, str]) -> asyncio.subprocess.Process:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: _ExitProtocol(CHUNK, loop),
            *(sys.executable, "-I", "-S", str(LAUNCHER), str(lifeline), *self._settings.command),
            env=environment,
            pass_fds=(lifeline,),
            start_new_session=True,
        )
        return asyncio.subprocess.Process(transport, protocol, loop)

    async def _converse(self, run: _Run, process: asyncio.subprocess.Process, leash: Leash) -> RunResult:
        timeout = f"no reply within {self._settings.timeout_s:g} s"
        timer = asyncio.get_running_loop().call_later(
            self._settings.timeout_s, run.stop, RunResult("failed", error=timeout)
        )
        talk = asyncio.gather(
            _feed(process, encode_input(run.request)), self._read(run, process), _tail(run, process)
        )
        try:
            code = await process.wait()
            _, reply, _ = await talk
        finally:
            timer.cancel()
            talk.cancel()
        if code == -signal.SIGKILL and leash.over:
            return run.stopped or RunResult("cancelled")
        return run.stopped or _judge(code, reply, run.stderr)

    async def _read(self, run: _Run, process: asyncio.subprocess.Process) -> bytes:
        """All of stdout, up to the limit; what exceeds it ends the run."""
        assert process.stdout is not None
        limit = self._settings.max_output_bytes
        reply = bytearray()
        while chunk := await process.stdout.read(CHUNK):
            reply += chunk
            if len(reply) > limit:
                run.stop(RunResult("failed", error=f"the reply is longer than {limit} bytes"))
                reply.clear()
        return bytes(reply)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    """Write stdin and close it. An agent that does not read it is none the worse for that."""
    assert process.stdin is not None
    try:
        process.stdin.write(data)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        log.debug("the agent closed stdin before reading all of it")
    finally:
        process.stdin.close()


async def _tail(run: _Run, process: asyncio.subprocess.Process) -> None:
    """Read stderr, keeping its end."""
    assert process.stderr is not None
    while chunk := await process.stderr.read(CHUNK):
        run.stderr += chunk
        del run.stderr[:-STDERR_TAIL]


def _judge(code: int, reply: bytes, stderr: bytearray) -> RunResult:
    said = stderr.decode("utf-8", "replace").strip()
    if code != 0:
        return RunResult("failed", error=f"exit status {code}" + (f": {said}" if said else ""))
    text = reply.decode("utf-8", "replace").rstrip("\r\n")
    if not text.strip():
        return RunResult("failed", error="the agent printed nothing" + (f"; stderr: {said}" if said else ""))
    return RunResult("ok", (text,))
