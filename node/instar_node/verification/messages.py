"""What verification says between machines."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.build import Build
from instar_node.verification.gates import Overrides
from instar_node.verification.report import DrillReport

ECHO_BYTES = 16 * 1024


class Echo(msgspec.Struct, frozen=True, tag="drill.echo"):
    """Send this back, with who you are."""

    data: Annotated[bytes, Meta(max_length=ECHO_BYTES)]


class Echoed(msgspec.Struct, frozen=True, tag="drill.echoed"):
    """The same bytes, and the program that sends them."""

    data: Annotated[bytes, Meta(max_length=ECHO_BYTES)]
    machine_id: Annotated[str, Meta(max_length=64)]
    build: Build


class ResultsNews(msgspec.Struct, frozen=True, tag="drill.results"):
    """Reports, each signed by its runner, and what persons decided, signed by a holder."""

    reports: Annotated[tuple[DrillReport, ...], Meta(max_length=64)]
    overrides: Overrides | None = None


class ResultsTaken(msgspec.Struct, frozen=True, tag="drill.results-taken"):
    """They are on disk."""
