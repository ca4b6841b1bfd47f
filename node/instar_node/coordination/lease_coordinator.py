"""``LeaseCoordinator``: what to do next about the lease, decided without doing it.

``FencedLease`` says what is allowed; this object says what is wise and when: promise rounds, reads of the
hub, benching and taking back, checkpoints, contending. It is plain code too: ``tick(now, peers)`` returns
effects, ``next_wake(now)`` says when to ask again, and outcomes are reported by the ``on_…`` methods.
``LeaseService`` performs the effects over the network; a simulation performs them in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from instar_node.coordination.fenced_lease import FOREVER, FencedLease, OpenSwap, SwapKind
from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord

OPENING_ROUND = 300_000
"""A new holder's first round, microseconds: who is silent in it is benched, so first answers do not wait."""
STABLE_ROUNDS = 2
"""Rounds a benched machine must answer in a row before it is taken back; doubles with each relapse."""
MAX_STABLE_ROUNDS = 32


class Peers(Protocol):
    """What the coordinator needs to know of the other machines, now."""

    def connected(self, machine: str) -> bool: ...

    def caught_up(self, machine: str) -> bool:
        """It holds every row this machine holds, and this one every row of it; its version is compatible."""

    def compared(self, machine: str) -> bool:
        """It and this machine have exchanged their newest records since this machine's start."""


@dataclass(frozen=True)
class ReadHub:
    """Read the register; report by ``on_read``. ``hub`` is where it lies now."""

    hub: HubPlace | None = None


@dataclass(frozen=True)
class SendSwap:
    """Send, or send again identically, the open own swap; report by ``on_won/on_lost/on_unknown``."""

    swap: OpenSwap


@dataclass(frozen=True)
class AskPromises:
    """Ask these machines to promise; report by ``on_promise`` or ``on_miss``."""

    machines: tuple[str, ...]
    known: KnownRecord
    began: int
    within: int


@dataclass(frozen=True)
class SendClosing:
    """Send our closing to its successor again: until it confirms, nobody is awake."""

    known: KnownRecord


Effect = ReadHub | SendSwap | AskPromises | SendClosing


@dataclass
class Wishes:
    """Changes of the membership of the record that wait for the next swap."""

    admit: set[str] = field(default_factory=set)
    expel: set[str] = field(default_factory=set)
    bench: dict[str, str] = field(default_factory=dict)
    """Machine -> why."""


@dataclass
class LeaseCoordinator:
    """Drives one machine's lease. ``nonce`` and ``at`` supply randomness and display time."""

    lease: FencedLease
    nonce: Callable[[], str]
    at: Callable[[], str]
    eligible: bool = True
    """False for a witness, an incompatible version or a node that is stopping: it never contends."""
    wishes: Wishes = field(default_factory=Wishes)
    misses: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    """Rounds answered in a row."""
    relapses: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    own_tip: str | None = None
    """Embedded hub: version at the tip of this machine's own register."""
    booted: int = 0
    _next_round: int = 0
    _opening: bool = False
    _next_read: int = 0
    _reading: bool = False
    _read_at: HubPlace | None = None
    _retry_at: int | None = None
    _sending: bool = False
    _next_closing: int = 0
    _wait_until: int = 0

    def boot(self, now: int) -> None:
        """Begin: everything that was known counts from now; the hub is read first."""
        self.booted = now
        self.lease.boot(now)
        self._next_read = now

    # -- deciding ----------------------------------------------------------------------------------

    def tick(self, now: int, peers: Peers) -> list[Effect]:
        """Everything to be done at ``now``, in order. Call again at ``next_wake`` and after each report."""
        effects: list[Effect] = []
        lease = self.lease
        if lease.durable.evidence is not None:
            return self._read_if_due(now)
        if lease.open is not None:
            effects += self._resend_if_due(now)
        if lease.holding is not None:
            effects += self._hold(now, peers)
        elif lease.open is None:
            effects += self._contend(now, peers)
        return effects + self._read_if_due(now)

    def next_wake(self, now: int) -> int:
        """The instant of the next thing this machine wants to do by itself, microseconds."""
        lease = self.lease
        times = [self._next_read]
        if lease.open is not None and self._retry_at is not None:
            times.append(self._retry_at)
        if lease.holding is not None:
            times.append(self._next_round)
            times.append(self._checkpoint_at())
            if (deadline := lease.deadline(now)) > now:
                times.append(deadline)
        elif lease.durable.evidence is None:
            due = lease.may_contend_at(now)
            if isinstance(due, int) and self.eligible:
                times.append(max(due, self._wait_until))
            if self._closing() is not None:
                times.append(self._next_closing)
        return max(min(times), now + 1_000)

    def _hold(self, now: int, peers: Peers) -> list[Effect]:
        effects: list[Effect] = []
        own = self.lease.holding
        assert own is not None
        if now >= self._next_round and self.lease.can_use_promises(now):
            effects += self._round(now, own.record)
        if self.lease.open is None:
            swap = self._membership_swap(now, peers, own.record)
            if swap is not None:
                effects.append(SendSwap(swap))
        return effects

    def _round(self, now: int, record: LeaseRecord) -> list[Effect]:
        known = self.lease.known
        own = self.lease.own
        assert known is not None
        assert own is not None
        pace = self.lease.timing.round
        self._next_round = now + pace
        within = min(OPENING_ROUND, pace) if self._opening else pace
        members = {*record.electorate, *record.benched}
        if self.lease.open is not None:
            members |= {*self.lease.open.record.electorate, *self.lease.open.record.benched}
        asked = tuple(sorted(members - {self.lease.me}))
        assert own.version is not None
        # The record asked about is our own: while a swap of ours is open it is still the one members know.
        return [AskPromises(asked, KnownRecord(own.record, own.version), now, within)] if asked else []

    def _membership_swap(self, now: int, peers: Peers, record: LeaseRecord) -> OpenSwap | None:
        electorate, benched = {*record.electorate}, {*record.benched}
        reasons: list[str] = []
        for machine in self.wishes.expel:
            if machine in electorate or machine in benched:
                reasons.append(f"removed {machine}")
            electorate.discard(machine)
            benched.discard(machine)
        for machine in self.wishes.admit - electorate - benched:
            benched.add(machine)
            reasons.append(f"admitted {machine}")
        for machine in sorted(electorate - {self.lease.me}):
            if (why := self._why_bench(machine, peers)) is not None:
                electorate.discard(machine)
                benched.add(machine)
                self.relapses[machine] = self.relapses.get(machine, 0) + 1
                self.answers[machine] = 0
                reasons.append(f"benched {machine}: {why}")
        for machine in sorted(benched):
            if machine in record.benched and self._is_stable(machine, peers):
                benched.discard(machine)
                electorate.add(machine)
                reasons.append(f"in sync {machine}")
        if not reasons and now >= self._checkpoint_at():
            reasons.append("checkpoint")
        if not reasons:
            return None
        self.wishes.bench.clear()
        changed = self.lease.next_record(
            reason="; ".join(reasons),
            at=self.at(),
            nonce=self.nonce(),
            electorate=tuple(sorted(electorate)),
            benched=tuple(sorted(benched)),
        )
        return self._begin(changed, "renew", now)

    def _why_bench(self, machine: str, peers: Peers) -> str | None:
        if machine in self.wishes.bench:
            return self.wishes.bench[machine]
        missed = self.misses.get(machine, 0)
        if missed >= 2 or (missed and not peers.connected(machine)):
            return f"missed {missed} round{'s' if missed > 1 else ''}"
        return None

    def _is_stable(self, machine: str, peers: Peers) -> bool:
        if machine in self.wishes.expel or machine in self.wishes.bench or self.misses.get(machine, 0):
            return False
        relapses = self.relapses.get(machine, 0)
        needed = min(STABLE_ROUNDS << (relapses - 1), MAX_STABLE_ROUNDS) if relapses else 1
        if self.answers.get(machine, 0) < needed:
            return False
        return peers.connected(machine) and peers.caught_up(machine)

    def _checkpoint_at(self) -> int:
        """While somebody is benched the holder renews by a swap every third of ``bench_ttl``."""
        own = self.lease.holding
        if own is None or self.lease.baton or not own.record.benched or self.lease.open is not None:
            return FOREVER
        return own.started + own.record.bench_ttl_ms * 1_000 // 3

    def _contend(self, now: int, peers: Peers) -> list[Effect]:
        if (closing := self._closing()) is not None:
            if now < self._next_closing:
                return []
            self._next_closing = now + self.lease.timing.round
            return [SendClosing(closing)]
        if not self.eligible or now < self._wait_until:
            return []
        due = self.lease.may_contend_at(now)
        if isinstance(due, str) or now < due:
            return []
        if self.lease.baton and not self._may_resume(now, peers):
            return []
        known = self.lease.known
        assert known is not None
        record = self.lease.contender_record(reason=self._reason(known), at=self.at(), nonce=self.nonce())
        return [SendSwap(self._begin(record, "contend", now))]

    def _may_resume(self, now: int, peers: Peers) -> bool:
        """A booting embedded holder first tries to reach every member for a ttl: one may have been forced."""
        known = self.lease.known
        assert known is not None
        if known.record.incarnation == self.lease.incarnation:  # it closed the other hub itself, just now
            return True
        others = {*known.record.electorate, *known.record.benched} - {self.lease.me}
        if all(peers.compared(machine) for machine in others):
            return True
        self._wait_until = self.booted + self.lease.timing.ttl
        return now >= self._wait_until

    def _reason(self, known: KnownRecord) -> str:
        record = known.record
        if record.moves:
            return "hub moved"
        if record.holder == self.lease.me:
            return "restarted"
        if self.lease.token is not None:
            return "handoff"
        return "took over after a release" if record.state == "released" else "failover"

    def _closing(self) -> KnownRecord | None:
        """Our own closing that its successor has not confirmed yet."""
        known = self.lease.known
        if known is None or not self.lease.baton or self.lease.open is not None:
            return None
        record = known.record
        ours = record.holder == self.lease.me and record.state == "closed"
        return known if ours and not record.moves else None

    def _read_if_due(self, now: int) -> list[Effect]:
        if self._reading or now < self._next_read:
            return []
        self._reading = True
        self._read_at = self.lease.hub
        return [ReadHub(self.lease.hub)]

    def _resend_if_due(self, now: int) -> list[Effect]:
        if self._sending or self._retry_at is None or now < self._retry_at:
            return []
        assert self.lease.open is not None
        self._sending = True
        return [SendSwap(self.lease.open)]

    # -- own swaps ---------------------------------------------------------------------------------

    def _begin(self, record: LeaseRecord, kind: SwapKind, now: int) -> OpenSwap:
        self._sending = True
        self._retry_at = None
        return self.lease.begin_swap(record, kind, now, self._expected())

    def _expected(self) -> str | None:
        """The version a swap of ours replaces: our own register's tip, or the newest record known, or
        nothing when that record closed another register."""
        known = self.lease.known
        if self.lease.baton:
            return self.own_tip
        return known.version if known is not None and not known.record.moves else None

    def begin(self, record: LeaseRecord, kind: SwapKind, now: int) -> SendSwap:
        """Begin a swap that a command asked for (found, release, close, open, force)."""
        return SendSwap(self._begin(record, kind, now))

    def on_won(self, won: KnownRecord, now: int) -> None:
        """The swap landed. A new holder's first round is short and immediate."""
        opening = self.lease.open is not None and self.lease.open.kind == "contend"
        self._settled()
        if self.lease.baton:
            self.own_tip = won.version
        self.lease.on_won(won, now)
        self._opening = opening
        if opening:
            self.misses.clear()
            self.answers.clear()
            self._next_round = now
        self._next_read = now + self.lease.timing.ttl

    def on_lost(self, seen: KnownRecord | None, now: int) -> None:
        """Somebody else's record is there: read it, and stop if it is newer."""
        self._settled()
        self._count("swaps_lost")
        self.lease.on_lost(seen, now)
        self._next_read = now

    def on_unknown(self, now: int, attempt: int) -> None:
        """The reply was lost: the same commit is sent again until the register is seen to differ."""
        self._count("swaps_unknown")
        self._sending = False
        if self.lease.mutations.forget_unknown:
            self.lease.abandon_unsent()
            return
        self._retry_at = now + min(200_000 << min(attempt, 5), 5_000_000)

    def on_unsent(self, now: int) -> None:
        """The hub could not even be asked; nothing left this machine."""
        self._settled()
        self._wait_until = now + self.lease.timing.round
        self.lease.abandon_unsent()

    def _settled(self) -> None:
        self._sending = False
        self._retry_at = None

    # -- reports -----------------------------------------------------------------------------------

    def on_read(self, seen: KnownRecord | None, known_before: tuple[int, int], began: int, now: int) -> None:
        """The register was read. What another register than the present one holds is no news."""
        self._reading = False
        if self._read_at != self.lease.hub:
            self._next_read = now
            return
        suspicious = self.lease.suspicion is not None
        if self.lease.baton:
            self._on_own_register(seen, now)
        else:
            self.lease.on_read(seen, known_before, began, now)
        again = self.lease.suspicion is not None and not suspicious
        self._next_read = now + (self.lease.timing.round // 4 if again else self._read_pace(now))

    def _on_own_register(self, seen: KnownRecord | None, now: int) -> None:
        """An embedded register holds only our own instances; it is read to know its tip."""
        self.own_tip = seen.version if seen is not None else None
        if seen is not None and seen.record.order > self.lease.order:
            self.lease.learn(seen, now)

    def on_hub_moved(self, now: int) -> None:
        """The lease goes on in another register: look at that one now."""
        self.own_tip = None
        self._next_read = now

    def on_read_failed(self, now: int) -> None:
        """The hub did not answer."""
        self._reading = False
        self._count("hub_unreachable")
        self._next_read = now + self.lease.timing.round

    def _read_pace(self, now: int) -> int:
        """A lapsed holder reads every round: it goes on only when a later read still shows its record."""
        ttl = self.lease.timing.ttl
        if self.lease.baton:
            return 10 * ttl
        if self.lease.holding is None:
            return 5 * ttl
        return ttl if self.lease.may_act(now) else self.lease.timing.round

    def on_promise(self, machine: str, version: str, began: int, now: int) -> None:
        """A machine promised in a round begun at ``began``."""
        self.misses[machine] = 0
        self.answers[machine] = self.answers.get(machine, 0) + 1
        was_valid = self.lease.may_act(now)
        self.lease.on_promise(machine, version, began, now)
        if not was_valid and not self._reading:
            self._next_read = min(self._next_read, now + self.lease.timing.round // 4)

    def on_miss(self, machine: str, now: int) -> None:
        """A machine did not promise in time. In a new holder's first round that benches it at once."""
        self.misses[machine] = self.misses.get(machine, 0) + 1
        self.answers[machine] = 0
        own = self.lease.holding
        if self._opening and own is not None and machine in own.record.electorate:
            self.wishes.bench[machine] = "silent when this machine took over"

    def on_round_over(self) -> None:
        """The opening round is over; later ones keep the ordinary pace."""
        self._opening = False

    def on_slow(self, machine: str) -> None:
        """An electorate member does not acknowledge rows: bench it rather than let every message wait."""
        own = self.lease.holding
        if own is not None and machine in own.record.electorate and machine != self.lease.me:
            self.wishes.bench[machine] = "too slow to keep up"

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1
