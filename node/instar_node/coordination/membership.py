"""Who should be in the electorate: the holder's judgement of the others, from what its rounds show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from instar_node.coordination.record import LeaseRecord

STABLE_ROUNDS = 2
"""Rounds a benched machine must answer in a row before it is taken back; doubles with each relapse."""
MAX_STABLE_ROUNDS = 32


class Peers(Protocol):
    """What the coordinator needs to know of the other machines, now."""

    def connected(self, machine: str) -> bool: ...

    def caught_up(self, machine: str) -> bool:
        """It holds every row this machine holds, and this one every row of it; its version is compatible."""

    def missing(self) -> frozenset[str]:
        """Machines whose older rows are not here yet; at least those the lease record names, until this
        machine's epoch has begun in the ledger."""

    def compared(self, machine: str) -> bool:
        """It and this machine have exchanged their newest records since this machine's start."""


@dataclass
class Wishes:
    """What commands and other parts want of the next own record."""

    admit: set[str] = field(default_factory=set)
    expel: set[str] = field(default_factory=set)
    bench: dict[str, str] = field(default_factory=dict)
    """Machine -> why."""


@dataclass(frozen=True)
class Change:
    """The lists of the next record, and why they differ from the present ones."""

    electorate: tuple[str, ...]
    benched: tuple[str, ...]
    incomplete: tuple[str, ...]
    reason: str


@dataclass
class Membership:
    """Benches who misses rounds, takes back who is stable and caught up, and grants wishes."""

    wishes: Wishes = field(default_factory=Wishes)
    misses: dict[str, int] = field(default_factory=dict)
    """Rounds missed in a row."""
    answers: dict[str, int] = field(default_factory=dict)
    """Rounds answered in a row."""
    relapses: dict[str, int] = field(default_factory=dict)
    mutations: Mutations = NO_MUTATIONS

    def forget_rounds(self) -> None:
        """A new tenure begins: what was counted in an older one says nothing."""
        self.misses.clear()
        self.answers.clear()

    def answered(self, machine: str) -> None:
        """It promised."""
        self.misses[machine] = 0
        self.answers[machine] = self.answers.get(machine, 0) + 1

    def missed(self, machine: str) -> None:
        """It did not answer in time."""
        self.misses[machine] = self.misses.get(machine, 0) + 1
        self.answers[machine] = 0

    def hurry(self, machine: str) -> None:
        """A person hands over to it: it need not show its stability again, only that it is caught up."""
        self.answers[machine] = max(self.answers.get(machine, 0), MAX_STABLE_ROUNDS)

    def change(self, record: LeaseRecord, peers: Peers, *, checkpoint: bool) -> Change | None:
        """What the next record should say; ``None`` while the present one is right and no checkpoint is due.

        Begin its swap in the same instant: ``peers.caught_up`` holds only until the next row is acknowledged.
        """
        if not checkpoint and not self._may_differ(record):
            return None
        electorate, benched = {*record.electorate}, {*record.benched}
        reasons = self._grant(electorate, benched)
        for machine in sorted(electorate - {record.holder}):
            if (why := self._why_bench(machine, peers)) is not None:
                electorate.discard(machine)
                benched.add(machine)
                self.relapses[machine] = self.relapses.get(machine, 0) + 1
                self.answers[machine] = 0
                reasons.append(f"benched {machine}: {why}")
        for machine in record.benched:
            if machine in benched and self._is_stable(machine, peers):
                benched.discard(machine)
                electorate.add(machine)
                reasons.append(f"in sync {machine}")
        incomplete = {*record.incomplete} & peers.missing() if record.incomplete else set()
        if not reasons and checkpoint:
            reasons.append("checkpoint")
        if not reasons and not benched and len(incomplete) < len(record.incomplete):
            # With somebody benched a checkpoint will soon say so, or the swap that takes the machine back.
            reasons.append("has all rows" if not incomplete else "has more rows")
        if not reasons:
            return None
        self.wishes.bench.clear()
        return Change(
            electorate=tuple(sorted(electorate)),
            benched=tuple(sorted(benched)),
            incomplete=tuple(sorted(incomplete)),
            reason="; ".join(reasons),
        )

    def _may_differ(self, record: LeaseRecord) -> bool:
        """Cheap: in steady state nobody missed a round, nobody is benched and nobody wishes for anything."""
        wishes = self.wishes
        if record.benched or record.incomplete or wishes.admit or wishes.expel or wishes.bench:
            return True
        return any(self.misses.values())

    def _grant(self, electorate: set[str], benched: set[str]) -> list[str]:
        reasons = []
        for machine in sorted(self.wishes.expel & (electorate | benched)):
            electorate.discard(machine)
            benched.discard(machine)
            reasons.append(f"removed {machine}")
        for machine in sorted(self.wishes.admit - electorate - benched):
            (electorate if self.mutations.admit_into_electorate else benched).add(machine)
            reasons.append(f"admitted {machine}")
        return reasons

    def _why_bench(self, machine: str, peers: Peers) -> str | None:
        if self.mutations.bench_nobody:
            return None
        if machine in self.wishes.bench:
            return self.wishes.bench[machine]
        missed = self.misses.get(machine, 0)
        if missed >= 2 or (missed and not peers.connected(machine)):
            return f"missed {missed} round{'s' if missed > 1 else ''}"
        return None

    def _is_stable(self, machine: str, peers: Peers) -> bool:
        if machine in self.wishes.bench or self.misses.get(machine, 0):
            return False
        relapses = self.relapses.get(machine, 0)
        needed = min(STABLE_ROUNDS << (relapses - 1), MAX_STABLE_ROUNDS) if relapses else 1
        if self.answers.get(machine, 0) < needed:
            return False
        level = peers.caught_up(machine) or self.mutations.take_back_unready
        return peers.connected(machine) and level
