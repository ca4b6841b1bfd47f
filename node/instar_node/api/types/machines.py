"""Who the machines are and how well this one is."""

from __future__ import annotations

from typing import Any, Literal

from instar_node.api.types.base import Model, Role


class Alert(Model):
    """Something a person should know; ``hint`` says what to do."""

    code: str
    message: str
    hint: str = ""


class Health(Model):
    status: Literal["ok", "degraded", "alarm"]
    version: str
    machine_id: str
    role: Role
    epoch: int
    split_brain: dict[str, Any] | None
    sync: dict[str, Any]
    gates: dict[str, Any]
    alerts: list[Alert]
    counters: dict[str, int]


class WhoAmI(Model):
    machine_id: str
    nickname: str
    fingerprint: str
    """Five words for people to compare."""
    signing_public_key: str
    """Raw Ed25519 public key, base64."""
    encryption_public_key: str
    """Raw X25519 public key, base64."""
    version: str
    role: Role | None
    mesh_id: str | None
    mesh_name: str | None
    """Two words derived from ``mesh_id``, to tell meshes apart at a glance."""
    urls: list[str]
    hub: str | None


class Lag(Model):
    """How far a copy is behind."""

    entries: int
    bytes: int
    ms: int


class Machine(Model):
    machine_id: str
    nickname: str
    fingerprint: str
    role: Role
    status: Literal["ok", "catching-up", "benched", "offline", "held-back", "joining", "removed"]
    status_text: str
    """The same for people, such as ``in sync`` or ``benched: missed 3 rounds``."""
    online: bool
    last_seen: str | None
    last_seen_ms: int | None
    """Milliseconds since this machine was last heard; 0 for the machine itself."""
    rtt_ms: int | None
    version: str
    protocol: tuple[int, int] | None
    electorate: bool
    lag: Lag | None
    topics: int
    running: int
    urls: list[str]
    is_self: bool


class Machines(Model):
    machines: list[Machine]
