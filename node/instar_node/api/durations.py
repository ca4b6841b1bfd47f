"""Durations as the API tells them: whole milliseconds."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from instar_node.clock import MICROS_PER_MS

T = TypeVar("T")


def round_trip_ms(micros: int | None) -> int | None:
    """A measured round trip in whole milliseconds, rounded up: it is never told shorter than it was."""
    return None if micros is None else -(-micros // MICROS_PER_MS)


def told(found: msgspec.Struct, kind: type[T]) -> T:
    """A part's own struct as the API's ``kind`` of the same fields, every ``…_ms`` in whole milliseconds."""
    return msgspec.convert(_whole(msgspec.to_builtins(found)), kind)


def _whole(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _whole_ms(name, value) for name, value in found.items()}
    return [_whole(value) for value in found] if isinstance(found, list | tuple) else found


def _whole_ms(name: str, value: Any) -> Any:
    return round(value) if name.endswith("_ms") and isinstance(value, float) else _whole(value)
