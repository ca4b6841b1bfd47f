"""``doctor``: what is wrong on this machine and in its mesh, and the command that mends it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from instar_node.api import types as t
from instar_node.config import load_config
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.exit_codes import ExitCode
from instar_tui.widgets.text import plural, size, span

LITTLE_SPACE = 200_000_000
"""Bytes; with less free, a warning."""
GRAVE = frozenset({"split-brain", "hub-replaced"})
"""Alerts that are problems; all others are warnings."""
_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}


class Finding(msgspec.Struct):
    """One thing looked at; ``hint`` says how to mend it."""

    check: str
    state: Literal["ok", "warning", "problem"]
    message: str
    hint: str = ""


class Findings(msgspec.Struct):
    """Answer of ``doctor --json``."""

    healthy: bool
    findings: list[Finding]


@command("doctor", "instar doctor", "instar doctor --json")
@pass_invocation
def doctor(invocation: Invocation) -> ExitCode:
    """Look for what is wrong and say how to mend it. Exits 1 when there is a problem; a warning is none."""
    home = invocation.home
    findings = [*_files(home), *_mesh(invocation)]
    healthy = all(finding.state != "problem" for finding in findings)
    out = invocation.out
    if invocation.json:
        out.json(Findings(healthy, findings))
    else:
        for finding in findings:
            out.line(f"{_MARKS[finding.state]} {finding.check:<9}  {finding.message}")
            if finding.hint:
                out.line(f"{'':<13}→ {finding.hint}")
    return ExitCode.DONE if healthy else ExitCode.REFUSED


# -- this home --------------------------------------------------------------------------------------------


def _files(home: Home) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[Home], str]], ...] = (
        ("settings", _settings),
        ("keys", _keys),
        ("registry", _registry),
        ("database", _database),
    )
    for name, check in checks:
        try:
            yield Finding(name, "ok", check(home))
        except InstarError as error:
            missing = error.code == "no-identity"
            yield Finding(name, "warning" if missing else "problem", error.message, error.hint)
    yield _space(home)


def _settings(home: Home) -> str:
    load_config(home.config)
    return f"{home.config} is valid" if home.config.exists() else "no config.toml: all defaults"


def _keys(home: Home) -> str:
    from instar_node.identity.keys import MachineIdentity

    identity = MachineIdentity.load(home.machine)
    return f"{identity.machine_id}: both keys are private and belong together"


def _registry(home: Home) -> str:
    from instar_tui.offline import stored_registry

    registry = stored_registry(home)
    if registry is None:
        return "this machine belongs to no mesh yet"
    active = sum(not member.removed for member in registry.members.values())
    return f"{plural(len(registry.records), 'record')}, all signatures good; {plural(active, 'machine')}"


def _database(home: Home) -> str:
    if not home.database.exists():
        return "none yet"
    try:
        connection = sqlite3.connect(f"{home.database.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[
                0
            ]
        finally:
            connection.close()
    except sqlite3.Error as error:
        hint = (
            f"stop the node, move {home.database} aside and start: the other machines have the conversations"
        )
        raise InstarError("database-unusable", f"{home.database} cannot be read: {error}", hint) from error
    return f"opens, {plural(tables, 'table')}, {size(home.database.stat().st_size)}"


def _space(home: Home) -> Finding:
    folder = next(parent for parent in (home.path, *home.path.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < LITTLE_SPACE:
        return Finding(
            "disk", "warning", f"only {size(free)} free on the disk of {home.path}", "free some space"
        )
    return Finding("disk", "ok", f"{size(free)} free")


# -- the mesh, through the running node -------------------------------------------------------------------


def _mesh(invocation: Invocation) -> Iterator[Finding]:
    try:
        picture = invocation.api.status()
    except InstarError as error:
        state: Literal["warning", "problem"] = "warning" if error.code == "node-not-running" else "problem"
        yield Finding("node", state, error.message, error.hint)
        return
    yield Finding("node", "ok", f"runs, {picture.health.role}, version {picture.health.version}")
    yield _hub(picture.lease.hub)
    yield from map(_machine, picture.machines)
    yield _failover(picture.lease.if_lost)
    if picture.outbox:
        message = f"{plural(picture.outbox, 'item')} not delivered"
        yield Finding("outbox", "warning", message, "instar outbox")
    for alert in picture.health.alerts:
        grave = alert.code in GRAVE
        yield Finding("alert", "problem" if grave else "warning", alert.message, alert.hint)


def _hub(hub: t.HubView) -> Finding:
    if not hub.reachable:
        return Finding(
            "hub", "problem", f"{hub.url} does not answer: {hub.error or 'no reason given'}", "instar lease"
        )
    return Finding("hub", "ok", f"{hub.kind} {hub.url} answers in {span(hub.latency_ms)}")


def _machine(machine: t.Machine) -> Finding:
    if machine.is_self or (machine.online and machine.status == "ok"):
        return Finding("machine", "ok", f"{machine.nickname}: {machine.status_text}")
    hint = "" if machine.online else f"is instar-tui running on {machine.nickname}, and its address right?"
    return Finding("machine", "warning", f"{machine.nickname}: {machine.status_text}", hint)


def _failover(lost: t.IfLost) -> Finding:
    if lost.next is not None and lost.why_not is None:
        return Finding("failover", "ok", f"{lost.next_nickname or lost.next} would take over by itself")
    why = lost.why_not or "no other machine is ready"
    return Finding("failover", "warning", f"nobody would take over by itself: {why}", lost.hint)
