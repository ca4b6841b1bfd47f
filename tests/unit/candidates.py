"""Machines for the rules of placement."""

from __future__ import annotations

import msgspec


class Candidate(msgspec.Struct, frozen=True):
    """A ``placement.Candidate`` with values of its own."""

    machine_id: str
    online: bool
    load: float
    open: bool = True
    settled: bool = True
