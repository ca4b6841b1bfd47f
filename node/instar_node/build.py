"""Which program this is: its version, and the protocols it speaks with other machines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from instar_node import PROTOCOL_RANGE, __version__

SEAM = "INSTAR_BUILD"
"""For tests of upgrades: names a JSON file (``{"version": …, "protocol": [lowest, highest]}``) that a program
reads at its start in place of its own numbers. Changing the file is "installing another version"."""

Protocols = tuple[int, int]
"""Lowest and highest protocol of the messages between machines that a program speaks."""


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One program."""

    version: str
    protocol: Protocols


def this_build(environ: Mapping[str, str] = os.environ) -> Build:
    """The program that runs; the only reader of the test seam."""
    path = environ.get(SEAM)
    if path:
        return msgspec.json.decode(Path(path).read_bytes(), type=Build)
    return Build(__version__, PROTOCOL_RANGE)


def overlap(one: Protocols, other: Protocols) -> bool:
    """Whether two ranges share a protocol: then both machines can work together."""
    return one[0] <= other[1] and other[0] <= one[1]


def spoken(protocol: Protocols) -> str:
    """A range as people read it: ``2``, or ``1–2``."""
    return str(protocol[0]) if protocol[0] == protocol[1] else f"{protocol[0]}–{protocol[1]}"
