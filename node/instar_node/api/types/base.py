"""What every struct of the node API shares: the two bases, the names people may give, the plain answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

TOPIC_PATTERN = r"^[A-Za-z0-9._:-]{1,64}\Z"
Topic = Annotated[str, Meta(min_length=1, max_length=64, pattern=TOPIC_PATTERN)]
Key = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
"""A message's own name; no control characters, for it goes into headers, environments and log lines."""
Role = Literal["awake", "standby", "witness", "removed"]


class Model(msgspec.Struct):
    """Base of all API structs."""


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """Base of all request bodies; an unknown field is a 400, not a silent surprise."""


class ErrorBody(Model):
    error: dict[str, Any]


class Ok(Model):
    ok: bool = True
    note: str | UnsetType = UNSET
