"""What is wrong with a home and with its mesh, each with the command that mends it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator

from instar_node.api import types as t
from instar_node.config import load_config
from instar_node.errors import InstarError
from instar_node.storage.home import Home

LITTLE_SPACE = 200_000_000
"""Bytes; with less free, a warning."""
GRAVE = frozenset({"split-brain", "hub-replaced"})
"""Alerts that are problems; all others are warnings."""


def diagnosis(findings: Iterable[t.Finding]) -> t.Doctor:
    """The findings, and whether none of them is a problem."""
    found = list(findings)
    return t.Doctor(all(finding.state != "problem" for finding in found), found)


def home_findings(home: Home) -> Iterator[t.Finding]:
    """What the files of a home tell. Reads disks: not for an event loop."""
    checks: tuple[tuple[str, Callable[[Home], str]], ...] = (
        ("settings", _settings),
        ("keys", _keys),
        ("registry", _registry),
        ("database", _database),
    )
    for name, check in checks:
        try:
            yield t.Finding(name, "ok", check(home))
        except InstarError as error:
            missing = error.code == "no-identity"
            yield t.Finding(name, "warning" if missing else "problem", error.message, error.hint)
    yield _space(home)


def mesh_findings(picture: t.Status) -> Iterator[t.Finding]:
    """What a running node knows of its mesh."""
    yield t.Finding("node", "ok", f"runs, {picture.health.role}, version {picture.health.version}")
    yield _hub(picture.lease.hub)
    yield from map(_machine, picture.machines)
    yield _failover(picture.lease.if_lost)
    if picture.outbox:
        yield t.Finding(
            "outbox", "warning", f"{_count(picture.outbox, 'item')} not delivered", "instar outbox"
        )
    for alert in picture.health.alerts:
        grave = alert.code in GRAVE
        yield t.Finding("alert", "problem" if grave else "warning", alert.message, alert.hint)


def node_finding(error: InstarError) -> t.Finding:
    """A node that does not answer: none runs, which may be meant, or one that hangs."""
    grave = error.code != "node-not-running"
    return t.Finding("node", "problem" if grave else "warning", error.message, error.hint)


def _settings(home: Home) -> str:
    load_config(home.config)
    return f"{home.config} is valid" if home.config.exists() else "no config.toml: all defaults"


def _keys(home: Home) -> str:
    from instar_node.identity.keys import MachineIdentity

    identity = MachineIdentity.load(home.machine)
    return f"{identity.machine_id}: both keys are private and belong together"


def _registry(home: Home) -> str:
    from instar_node.identity.stored import stored_registry

    registry = stored_registry(home.machine)
    if registry is None:
        return "this machine belongs to no mesh yet"
    active = sum(not member.removed for member in registry.members.values())
    return f"{_count(len(registry.records), 'record')}, all signatures good; {_count(active, 'machine')}"


def _database(home: Home) -> str:
    if not home.database.exists():
        return "none yet"
    try:
        connection = sqlite3.connect(f"{home.database.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            (tables,) = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InstarError(
            "database-unusable",
            f"{home.database} cannot be read: {error}",
            f"stop the node, move {home.database} aside and start: the other machines have the conversations",
        ) from error
    written_ahead = home.database.with_name(f"{home.database.name}-wal")  # what is newest may be there alone
    size = sum(part.stat().st_size for part in (home.database, written_ahead) if part.exists())
    return f"opens, {_count(tables, 'table')}, {_size(size)}"


def _space(home: Home) -> t.Finding:
    folder = next(parent for parent in (home.path, *home.path.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < LITTLE_SPACE:
        message = f"only {_size(free)} free on the disk of {home.path}"
        return t.Finding("disk", "warning", message, "free some space")
    return t.Finding("disk", "ok", f"{_size(free)} free")


def _hub(hub: t.HubView) -> t.Finding:
    if not hub.reachable:
        why = hub.error or "no reason given"
        return t.Finding("hub", "problem", f"{hub.url} does not answer: {why}", "instar lease")
    took = "" if hub.latency_ms is None else f" in {hub.latency_ms} ms"
    return t.Finding("hub", "ok", f"{hub.kind} {hub.url} answers{took}")


def _machine(machine: t.Machine) -> t.Finding:
    if machine.is_self or (machine.online and machine.status == "ok"):
        return t.Finding("machine", "ok", f"{machine.nickname}: {machine.status_text}")
    hint = "" if machine.online else f"is instar-tui running on {machine.nickname}, and its address right?"
    return t.Finding("machine", "warning", f"{machine.nickname}: {machine.status_text}", hint)


def _failover(lost: t.IfLost) -> t.Finding:
    if lost.next is not None and lost.why_not is None:
        return t.Finding("failover", "ok", f"{lost.next_nickname or lost.next} would take over by itself")
    why = lost.why_not or "no other machine is ready"
    return t.Finding("failover", "warning", f"nobody would take over by itself: {why}", lost.hint)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _size(count: int) -> str:
    """Bytes in the largest unit that gives at least one of it, as disks are sold: ``4.1 kB``, ``1.3 MB``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count} B"
