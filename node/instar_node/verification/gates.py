"""Whether a component may be used between two machines: what drills have shown, and what a person decided.

Pure. A component that was never tried out with the versions that run is open and *unverified*; a drill that
failed shuts it; a person's word goes above both.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.build import Build
from instar_node.errors import InstarError
from instar_node.verification.components import BY_NAME, USES, Use, needed_for
from instar_node.verification.report import DrillReport, Signer, StepResult, Verifier

State = Literal["open", "shut", "unverified", "overridden"]
Choice = Literal["open", "shut"]

SEVERITY: tuple[State, ...] = ("open", "overridden", "unverified", "shut")
"""From the best to the worst; a gate shows its worst peer."""

PURPOSE = "instar-gates/1"


class Override(msgspec.Struct, frozen=True):
    """A person's word about one gate, given on the machine ``by``."""

    state: Choice
    by: Annotated[str, Meta(max_length=64)]
    at: Annotated[str, Meta(max_length=64)]


class Overrides(msgspec.Struct, frozen=True):
    """All of them, signed by the holder of ``epoch``; the greatest ``(epoch, n)`` counts, and whole."""

    epoch: int = 0
    n: int = 0
    holder: Annotated[str, Meta(max_length=64)] = ""
    gates: Annotated[dict[str, Override], Meta(max_length=64)] = {}
    signature: Annotated[bytes, Meta(max_length=64)] = b""

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.n)

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        ordered = dict(sorted(self.gates.items()))
        return msgspec.json.encode(msgspec.structs.replace(self, gates=ordered, signature=b""))

    def changed(self, gate: str, word: Override | None, holder: str, epoch: int) -> Overrides:
        """The next ones, unsigned: with this word about a gate, or without one."""
        gates = {name: given for name, given in self.gates.items() if name != gate}
        if word is not None:
            gates[gate] = word
        n = self.n + 1 if self.epoch == epoch else 1
        return Overrides(epoch, n, holder, gates)

    def signed(self, sign: Signer) -> Overrides:
        """With the holder's signature."""
        return msgspec.structs.replace(self, signature=sign(PURPOSE, self.canonical()))

    def is_authentic(self, verify: Verifier) -> bool:
        """Whether the machine it names, a member, signed exactly this."""
        return verify(self.holder, PURPOSE, self.canonical(), self.signature)


class Verdict(msgspec.Struct, frozen=True):
    """The state of one gate towards one machine, and why; ``at`` is when a drill decided it."""

    state: State
    why: str
    at: str | None = None

    @property
    def lets_through(self) -> bool:
        return self.state != "shut"


class Subject(msgspec.Struct, frozen=True):
    """Two machines and what they run now; ``None`` for a machine that was not heard yet."""

    here: str
    here_build: Build
    there: str
    there_build: Build | None


def judge(
    subject: Subject, found: tuple[DrillReport, StepResult] | None, override: Override | None
) -> Verdict:
    """The state of a gate between two machines; ``found`` is the newest authentic result of its component."""
    if override is not None:
        if override.state == "shut":
            return Verdict("shut", "shut by hand", override.at)
        return Verdict("overridden", "opened by hand", override.at)
    if found is None:
        return Verdict("unverified", "no drill has tried it yet")
    report, step = found
    if not _same_builds(report, subject):
        ran = " and ".join(dict.fromkeys(report.versions().values()))
        return Verdict("unverified", f"tried with {ran}, not with the versions running now")
    if not step.passed:
        return Verdict("shut", f"its drill failed: {step.finding}", report.at)
    return Verdict("open", step.finding, report.at)


def refusal(use: Use, name: str, verdicts: dict[str, Verdict]) -> InstarError | None:
    """Why something may not be done with the machine called ``name``; ``None`` when it may.

    ``verdicts`` has every component that the use needs; the first shut one is named.
    """
    for component in needed_for(use):
        verdict = verdicts[component]
        if not verdict.lets_through:
            return InstarError(
                "gate-shut",
                f"{USES[use]} is shut for {name}: {component}: {verdict.why}",
                f"`instar verify {name}` tries it again; `instar flags {component} open` overrides",
                extra={"gate": component, "why": verdict.why},
            )
    return None


def check_gate(name: str) -> str:
    """The name of a gate. Raises ``InstarError("unknown-gate")`` (404) listing those there are."""
    if name not in BY_NAME:
        raise InstarError(
            "unknown-gate",
            f"no gate is called {name}",
            f"known: {', '.join(BY_NAME)}",
            status=404,
            extra={"known": list(BY_NAME)},
        )
    return name


def _same_builds(report: DrillReport, subject: Subject) -> bool:
    """Whether what ran in the drill runs now. Of a machine not heard yet, the last word stands."""
    ran = {report.runner: report.runner_build, report.peer: report.peer_build}
    there = subject.there_build or ran[subject.there]
    return ran[subject.here] == subject.here_build and ran[subject.there] == there
