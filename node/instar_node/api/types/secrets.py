"""Secrets: their names for everybody, a value only for who asks for it."""

from __future__ import annotations

from instar_node.api.types.base import Body, Model


class SecretValue(Body):
    value: str


class SecretRow(Model):
    """One secret, without its value."""

    name: str
    version: int
    set_at: str
    readers: list[str]
    """Nicknames of the machines that can open it."""
    exposed_to: list[str]
    """Nicknames of former machines that could read this value: it should be changed."""
    readable_here: bool


class Secrets(Model):
    names: list[str]
    secrets: list[SecretRow]


class Secret(Model):
    """The one answer that holds a value; only for the local token."""

    name: str
    value: str
