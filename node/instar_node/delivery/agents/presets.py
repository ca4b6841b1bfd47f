"""Presets for the common agent CLIs: how each is asked, and what it answers. Pure.

A CLI that keeps sessions goes on in its own one as long as the conversation is what that session knows;
else it begins anew and is given the history. So the conversation travels between machines. What does not:
the CLI's working folder and its files, its log-in, its memory beyond this conversation, and what its tools
did.

Sources: the headless-mode pages of Claude Code and Gemini CLI, docs/exec.md of openai/codex, and what each
program says to ``--help``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import msgspec

from instar_node.contracts import HistoryItem
from instar_node.delivery.agents.agent_input import AgentInput

T = TypeVar("T", bound=msgspec.Struct)
PresetName = Literal["claude", "codex", "gemini"]


class Said(NamedTuple):
    """What a CLI answered, and the session in which it would go on (empty: it keeps none)."""

    text: str
    session: str


class UnreadableAnswerError(Exception):
    """The CLI printed something else than it does when all is well."""


class Preset(NamedTuple):
    """One CLI. ``fresh`` and ``resume`` are its arguments, the prompt comes on stdin; ``{session}`` is filled
    in. ``read`` understands its stdout."""

    program: str
    fresh: tuple[str, ...]
    resume: tuple[str, ...]
    read: Callable[[bytes], Said]

    def arguments(self, session: str) -> tuple[str, ...]:
        """The arguments for going on in a session, or for a new one."""
        if not session:
            return self.fresh
        return tuple(argument.replace("{session}", session) for argument in self.resume)


# -- prompts ----------------------------------------------------------------------------------------------


def fingerprint(history: tuple[HistoryItem, ...]) -> str:
    """Names the newest answer of a conversation: a session that ends with it knows the conversation."""
    for line in reversed(history):
        if line.role == "agent":
            return fingerprint_of(line.text)
    return ""


def fingerprint_of(answer: str) -> str:
    """Names one answer."""
    return hashlib.sha256(answer.strip().encode()).hexdigest()


def prompt(asked: AgentInput, resumed: bool) -> str:
    """What the CLI is told: the message, after the lines that its session does not know."""
    lines = list(asked.history)
    if resumed:
        last = max((n for n, line in enumerate(lines) if line.role == "agent"), default=-1)
        lines = lines[last + 1 :]
    if not lines:
        return asked.message.text
    told = "\n\n".join(
        f"[{'you' if line.role == 'agent' else 'user'}, {line.at}]\n{line.text}" for line in lines
    )
    return f"The conversation so far:\n\n{told}\n\n[end of the conversation so far]\n\n{asked.message.text}"


# -- answers ----------------------------------------------------------------------------------------------


class _ClaudeAnswer(msgspec.Struct, frozen=True):
    result: str = ""
    session_id: str = ""
    is_error: bool = False


class _GeminiAnswer(msgspec.Struct, frozen=True):
    response: str = ""


class _CodexItem(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""


class _CodexEvent(msgspec.Struct, frozen=True):
    type: str
    thread_id: str = ""
    message: str = ""
    item: _CodexItem = _CodexItem()


def _read_claude(out: bytes) -> Said:
    answer = _decoded(out, _ClaudeAnswer)
    if answer.is_error:
        raise UnreadableAnswerError(answer.result or "claude reported an error")
    return Said(answer.result, answer.session_id)


def _read_gemini(out: bytes) -> Said:
    return Said(_decoded(out, _GeminiAnswer).response, "")


def _read_codex(out: bytes) -> Said:
    """Events, one JSON object a line; the last message of the agent is the answer."""
    session = text = ""
    for line in out.splitlines():
        if not line.strip():
            continue
        event = _decoded(line, _CodexEvent)
        if event.type == "thread.started":
            session = event.thread_id
        elif event.type == "item.completed" and event.item.type == "agent_message":
            text = event.item.text
        elif event.type in ("error", "turn.failed"):
            raise UnreadableAnswerError(event.message or "codex reported an error")
    return Said(text, session)


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        start = data[:200].decode("utf-8", "replace")
        raise UnreadableAnswerError(f"its output is not what was expected ({error}): {start}") from error


PRESETS: dict[PresetName, Preset] = {
    "claude": Preset(
        "claude",
        ("-p", "--output-format", "json"),
        ("-p", "--output-format", "json", "--resume", "{session}"),
        _read_claude,
    ),
    "codex": Preset(
        "codex",
        ("exec", "--json", "--skip-git-repo-check", "-"),
        ("exec", "resume", "--json", "--skip-git-repo-check", "{session}", "-"),
        _read_codex,
    ),
    # Its --resume takes numbers that shift as sessions come and go: the history is sent each time instead.
    "gemini": Preset("gemini", ("--output-format", "json"), (), _read_gemini),
}
