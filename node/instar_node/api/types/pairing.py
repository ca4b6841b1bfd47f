"""Pairing a machine, seen from the host and from the joiner."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from instar_node.api.types.base import Body, Model


class PairRequest(Body):
    sas: bool = False


class PairConfirm(Body):
    accept: bool


class Sas(Model):
    """The short authentication string: the same six digits and four emoji on both machines."""

    digits: str
    emoji: list[str]
    names: list[str]


class PairView(Model):
    state: Literal["none", "open", "confirming", "joined", "expired", "locked", "consumed", "cancelled"]
    code: str | None
    """Only for the local token; never in a reply to a peer."""
    url: str | None
    join_command: str | None
    expires_in_ms: int
    lifetime_ms: int
    attempts_left: int
    attempts_max: int
    sas: Sas | None = None
    joiner: dict[str, Any] | None = None
    """``machine_id, nickname, fingerprint`` of who joined."""
    last_refusal: str | None = None
    warning: str | None = None
    """Such as: this address is only reachable from this host."""


class JoinRequest(Body):
    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    nickname: Annotated[str, Meta(max_length=40)] | None = None
    sas: bool = False
    witness: bool = False
    """Only keep the lease register for the others."""


class JoinResult(Model):
    machine_id: str
    mesh_id: str
    peer: dict[str, Any]
    """``machine_id, nickname, fingerprint, url`` of the machine that admitted us."""
    sas: Sas
    next: str
    """The command to type next."""
