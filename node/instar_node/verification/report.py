"""``DrillReport``: what one drill with one machine came to, signed by the machine that ran it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.build import Build

PURPOSE = "instar-drill/1"
"""Purpose string that every signature of a report covers, beside the mesh id and the canonical bytes."""

Id = Annotated[str, Meta(max_length=64)]
Finding = Annotated[str, Meta(max_length=500)]

Signer = Callable[[str, bytes], bytes]
"""``(purpose, bytes)``: this machine's signature."""
Verifier = Callable[[str, str, bytes, bytes], bool]
"""``(machine id, purpose, bytes, signature)``: whether that member, still one, signed them."""


class StepResult(msgspec.Struct, frozen=True):
    """One component. ``finding`` is evidence when it passed, what is wrong when it did not."""

    component: Id
    passed: bool
    finding: Finding
    took_ms: float


class DrillReport(msgspec.Struct, frozen=True):
    """One drill, or the live handoff that followed one (``live``). Never changed once it is signed.

    ``(epoch, n)`` orders the reports; ``at`` is for display only. A component is in ``steps`` only when it
    was decided; ``unfinished`` says why the drill ended early.
    """

    runner: Id
    peer: Id
    epoch: int
    n: int
    at: Id
    live: bool
    runner_build: Build
    peer_build: Build
    steps: Annotated[tuple[StepResult, ...], Meta(max_length=32)]
    took_ms: float
    unfinished: Finding = ""
    signature: Annotated[bytes, Meta(max_length=64)] = b""

    @property
    def order(self) -> tuple[int, int]:
        """What is newer is greater."""
        return (self.epoch, self.n)

    @property
    def failed(self) -> StepResult | None:
        """The first component that failed."""
        return next((step for step in self.steps if not step.passed), None)

    @property
    def passed(self) -> bool:
        """Whether every component was decided, and works."""
        return self.failed is None and not self.unfinished

    def versions(self) -> dict[str, str]:
        """Machine id -> version that ran."""
        return {self.runner: self.runner_build.version, self.peer: self.peer_build.version}

    def canonical(self) -> bytes:
        """The bytes that are signed: the report without its signature, fields in declared order."""
        return msgspec.json.encode(msgspec.structs.replace(self, signature=b""))

    def signed(self, sign: Signer) -> DrillReport:
        """With the runner's signature."""
        return msgspec.structs.replace(self, signature=sign(PURPOSE, self.canonical()))

    def is_authentic(self, verify: Verifier) -> bool:
        """Whether its runner, a member, signed exactly this."""
        return verify(self.runner, PURPOSE, self.canonical(), self.signature)
