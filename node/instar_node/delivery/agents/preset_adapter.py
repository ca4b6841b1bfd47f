"""Runs an agent CLI for one message: ``python -m … PRESET SESSIONS PROGRAM ARG…``.

A program of its own between the node and the CLI: it reads what every ``command`` agent reads, asks the CLI
as its preset says, and prints the answer. It runs in the agent's process group, so what ends the run ends
both. SESSIONS is a folder of this machine with one file a topic: the session in which the CLI last answered.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import msgspec

from instar_node.delivery.agents.agent_input import AgentInput
from instar_node.delivery.agents.presets import (
    PRESETS,
    Preset,
    PresetName,
    Said,
    UnreadableAnswerError,
    fingerprint,
    fingerprint_of,
    prompt,
)

OUTPUT_BYTES = 64 * 1024 * 1024
"""Most that a CLI may print, all its events included; the answer itself has the limit of ``[agent]``."""


class Session(msgspec.Struct, frozen=True):
    """A CLI's session in one topic, and the answer with which it ended."""

    program: str
    session: str
    last_answer: str


class FailedRunError(Exception):
    """The CLI ended with an exit status other than 0; its own words went to stderr."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def main(arguments: list[str]) -> int:
    """Answer the message on stdin; the exit status."""
    name, folder, *command = arguments
    preset = PRESETS[cast(PresetName, name)]
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=AgentInput)
    place = Path(folder) / f"{asked.topic.replace(':', '%3A')}.json"
    try:
        said = answer(preset, tuple(command), asked, known_session(place, command[0], asked))
    except (UnreadableAnswerError, FailedRunError) as error:
        sys.stderr.write(f"{command[0]}: {error}\n")
        return error.status if isinstance(error, FailedRunError) else 1
    if said.session:
        keep(place, Session(command[0], said.session, fingerprint_of(said.text)))
    sys.stdout.buffer.write(said.text.encode())
    return 0


def answer(preset: Preset, command: tuple[str, ...], asked: AgentInput, session: str) -> Said:
    """Ask in the session; one that the CLI does not know any more gives way to a new one with the history."""
    if session:
        try:
            return ask(preset, command, session, prompt(asked, resumed=True))
        except FailedRunError as error:
            sys.stderr.write(f"session {session}: {error}; beginning a new one\n")
    return ask(preset, command, "", prompt(asked, resumed=False))


def ask(preset: Preset, command: tuple[str, ...], session: str, text: str) -> Said:
    """Run the CLI once. Raises ``FailedRunError`` or ``UnreadableAnswerError``."""
    with tempfile.TemporaryFile() as told:
        told.write(text.encode())
        told.seek(0)
        line = [*command, *preset.arguments(session)]  # the program that the person's own settings name
        with subprocess.Popen(line, stdin=told, stdout=subprocess.PIPE) as process:  # noqa: S603
            assert process.stdout is not None
            out = process.stdout.read(OUTPUT_BYTES + 1)
            if len(out) > OUTPUT_BYTES:
                process.kill()
                raise UnreadableAnswerError(f"it printed more than {OUTPUT_BYTES} bytes")
            status = process.wait()
    if status != 0:
        raise FailedRunError(status)
    return preset.read(out)


def known_session(place: Path, program: str, asked: AgentInput) -> str:
    """The session to go on in: the one that gave the newest answer of this topic; empty if none did."""
    try:
        known = msgspec.json.decode(place.read_bytes(), type=Session)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return ""
    fits = known.program == program and known.last_answer == fingerprint(asked.history)
    return known.session if fits else ""


def keep(place: Path, session: Session) -> None:
    """Remember a session; without a place for it, the next run begins a new one."""
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            file.write(msgspec.json.encode(session))
        os.replace(file.name, place)
    except OSError as error:
        sys.stderr.write(f"the session cannot be remembered: {error}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
