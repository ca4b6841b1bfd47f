"""Running the git program for what must go through the person's own git: their ssh settings and credentials.

It never asks a question (no prompts, no password dialogs), answers in English, and ends in time: at the
timeout its whole process group is killed, ssh and credential helpers included.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import msgspec
import pygit2

from instar_node.coordination.hub import without_password
from instar_node.coordination.lease_store import StoreUnavailable

_INHERITED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
_CONNECT_SECONDS = 10
_REAP_SECONDS = 1.0


class GitResult(msgspec.Struct, frozen=True):
    """How a git command ended; ``errors`` is its stderr without passwords."""

    code: int
    output: str
    errors: str


async def run_git(repository: Path, *arguments: str, within: float) -> GitResult:
    """Run git on a bare repository and wait for it.

    Raises:
        StoreUnavailable: git is not installed, or it did not end within ``within`` seconds (what it was told
            to do may have been done, or may yet be done by the other side).
    """
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            f"--git-dir={repository}",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise StoreUnavailable(
            "a remote hub needs the git program, which is not installed", "git-missing"
        ) from error
    try:
        async with asyncio.timeout(within):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise StoreUnavailable(f"the hub did not answer within {within:g} s") from error
    finally:
        await _kill_group(process)
    return GitResult(
        code=process.returncode or 0,
        output=output.decode("utf-8", "replace"),
        errors=without_password(errors.decode("utf-8", "replace")),
    )


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill git and all it started, unless it ended by itself."""
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    with contextlib.suppress(TimeoutError):  # a helper that left the group may keep the pipes open
        async with asyncio.timeout(_REAP_SECONDS):
            await process.wait()


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _INHERITED}
    environment |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS_REQUIRE": "never",
    }
    if "GIT_SSH" not in environment:  # a program of the person's own, which may not know OpenSSH's options
        command = environment.get("GIT_SSH_COMMAND") or _configured_ssh()
        environment["GIT_SSH_COMMAND"] = f"{command} -o BatchMode=yes -o ConnectTimeout={_CONNECT_SECONDS}"
    return environment


def _configured_ssh() -> str:
    try:
        return str(pygit2.Config.get_global_config()["core.sshCommand"])
    except (KeyError, OSError):  # not set, or no configuration file at all
        return "ssh"
