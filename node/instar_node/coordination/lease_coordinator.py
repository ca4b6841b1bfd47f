"""``LeaseCoordinator``: what to do next about the lease, decided without doing it.

``FencedLease`` says what is allowed; this object says what is wise and when: promise rounds, reads of the
hub, benching and taking back, checkpoints, contending. It is plain code too: ``tick(now, peers)`` returns
effects, ``next_wake(now)`` says when to ask again, and outcomes are reported by the ``on_…`` methods.
``LeaseDriver`` performs the effects over the network; a simulation performs them in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_state import FOREVER, OpenSwap, SwapKind, Tenure
from instar_node.coordination.membership import Membership, Peers
from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord

OPENING_ROUND = 300_000
"""A new holder's first round, microseconds: who is silent in it is benched, so first answers do not wait."""


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
class LeaseCoordinator:
    """Drives one machine's lease. ``nonce`` and ``at`` supply randomness and display time."""

    lease: FencedLease
    nonce: Callable[[], str]
    at: Callable[[], str]
    eligible: bool = True
    """False for a witness, an incompatible version or a node that is stopping: it never contends."""
    able: bool = True
    """False while this machine could not act although it may: its disk refuses to store. It collects no
    promises then, so that another machine takes over."""
    membership: Membership = field(default_factory=Membership)
    vouched: Callable[[], str] = lambda: ""
    """The state commit that an own record may vouch for; empty: it says what the one before said."""
    current: Callable[[], bool] = lambda: True
    """Whether this machine has the state that the newest record vouches for; see ``lacks_state``."""
    counters: dict[str, int] = field(default_factory=dict)
    own_tip: str | None = None
    """Embedded hub: version at the tip of this machine's own register."""
    _tip_since: int = -1
    """When ``own_tip`` became what it is by a swap of ours; a read begun before says nothing of it."""
    booted: int = 0
    _own_register_read: bool = False
    _asking_around: bool = False
    _sought_since: int | None = None
    """The lapse for which the register is being read."""
    _next_round: int = 0
    _opening: bool = False
    _next_read: int = 0
    _reading: bool = False
    _read_at: HubPlace | None = None
    _retry_at: int | None = None
    _sending: bool = False
    _next_closing: int = 0
    _wait_until: int = 0
    _swap_again: int = 0
    """Holder: a register that lost our swap and shows nobody else's is not asked again before this."""
    _given_up: str | None = None
    """The own version that was given up last."""
    _left_until: int = 0
    """Until when that version is left to others."""

    def boot(self, now: int) -> None:
        """Begin: everything that was known counts from now; the hub is read first."""
        self.membership.mutations = self.lease.mutations
        self.booted = now
        self.lease.boot(now)
        self._next_read = now

    # -- deciding ----------------------------------------------------------------------------------

    def tick(self, now: int, peers: Peers) -> list[Effect]:
        """Everything to be done at ``now``, in order. Call again at ``next_wake`` and after each report."""
        effects: list[Effect] = []
        lease = self.lease
        if lease.pursued:
            effects += self._resend_if_due(now)
        if lease.durable.evidence is not None:
            return effects + self._read_if_due(now)
        if lease.holding is not None:
            effects += self._hold(now, peers)
        elif lease.open is None:
            effects += self._contend(now, peers)
        return effects + self._read_if_due(now)

    def next_wake(self, now: int) -> int:
        """The instant of the next thing this machine wants to do by itself, microseconds. What is under way
        is not waited for: its report comes by itself."""
        lease = self.lease
        wake = FOREVER if self._reading else self._next_read
        if lease.pursued and self._retry_at is not None and not self._sending:
            wake = min(wake, self._retry_at)
        if lease.durable.evidence is not None:
            return max(wake, now + 1_000)
        if lease.holding is not None:
            wake = min(wake, self._holders_wake(now))
        elif lease.open is None:
            wake = min(wake, self._contenders_wake(now))
        return max(wake, now + 1_000)

    def _holders_wake(self, now: int) -> int:
        wake, deadline = max(self._checkpoint_at(), self._swap_again), self.lease.deadline
        if now < deadline:
            wake = min(wake, deadline)
        if self._may_collect(now):
            wake = min(wake, self._next_round)
        return wake

    def _contenders_wake(self, now: int) -> int:
        if self._asking_around and now < self.booted + self.lease.timing.ttl:
            return self.booted + self.lease.timing.ttl
        if self._closing() is not None:
            return self._next_closing
        due = self.lease.may_contend_at(now)
        if isinstance(due, str) or not self.eligible or (self.lease.baton and not self._own_register_read):
            return FOREVER
        if due <= now and self.lacks_state:
            return FOREVER  # whoever learns that it has come says so
        return max(due, self._wait_until, self._left_until if self.lease.own is not None else due)

    def _hold(self, now: int, peers: Peers) -> list[Effect]:
        effects: list[Effect] = []
        own = self.lease.holding
        assert own is not None
        if self.lease.needs_read(now):
            self._hurry_read(now)
        elif now >= self._next_round and self._may_collect(now):
            effects += self._round(now, own)
        if self.lease.open is None and now >= self._swap_again:
            swap = self._membership_swap(now, peers, own)
            if swap is not None:
                effects.append(SendSwap(swap))
        return effects

    def _may_collect(self, now: int) -> bool:
        """Whether a full round would make this machine act; otherwise promises only keep others from it."""
        able = self.able or self.lease.mutations.collect_when_unable
        return able and self.lease.can_use_promises(now)

    def _hurry_read(self, now: int) -> None:
        """Lapsed: only a read from now on lets us go on, so it does not wait for its turn; once a lapse."""
        lapse = self.lease.deadline
        if self._sought_since != lapse:
            self._sought_since = lapse
            self._next_read = now

    def _round(self, now: int, own: Tenure) -> list[Effect]:
        pace = self.lease.timing.round
        self._next_round = now + pace
        members = {*own.others, *own.record.benched}
        if (swap := self.lease.open) is not None:
            members |= {*swap.others, *swap.record.benched}
        if not members:
            self._opening = False
            return []
        within = min(OPENING_ROUND, pace) if self._opening else pace
        assert own.version is not None
        # The record asked about is our own: while a swap of ours is open it is still the one members know.
        return [AskPromises(tuple(sorted(members)), KnownRecord(own.record, own.version), now, within)]

    def _membership_swap(self, now: int, peers: Peers, own: Tenure) -> OpenSwap | None:
        change = self.membership.change(own.record, peers, checkpoint=now >= self._checkpoint_at())
        if change is None:
            return None
        changed = self.lease.next_record(
            reason=change.reason,
            at=self.at(),
            nonce=self.nonce(),
            electorate=change.electorate,
            benched=change.benched,
            incomplete=change.incomplete,
        )
        return self._begin(changed, "renew", now)

    def _checkpoint_at(self) -> int:
        """While somebody is benched the holder renews by a swap every third of ``bench_ttl``."""
        own = self.lease.holding
        if own is None or self.lease.baton or not own.record.benched or self.lease.open is not None:
            return FOREVER
        if self.lease.mutations.no_checkpoint:
            return FOREVER
        return own.started + own.record.bench_ttl_ms * 1_000 // 3

    def _contend(self, now: int, peers: Peers) -> list[Effect]:
        if (closing := self._closing()) is not None:
            if now < self._next_closing or not self._has_asked_around(now, peers):
                return []
            once = self.lease.mutations.closing_sent_once
            self._next_closing = FOREVER if once else now + self.lease.timing.round
            return [SendClosing(closing)]
        left = self._leaves_to_others(now)
        if left or not self.eligible or now < self._wait_until:
            return []
        due = self.lease.may_contend_at(now)
        if isinstance(due, str) or now < due:
            return []
        if self.lacks_state:
            self.count("held_for_state")
            return []
        if self.lease.baton and not self._may_resume(now, peers):
            return []
        known = self.lease.known
        assert known is not None
        record = self.lease.contender_record(reason=self._reason(known), at=self.at(), nonce=self.nonce())
        return [SendSwap(self._begin(record, "contend", now))]

    @property
    def lacks_state(self) -> bool:
        """Whether this machine may not take over by itself, wherever the register lies: the state that the
        newest record vouches for is not here. A host that takes its copy back, or shows it to some only, must
        not have a machine go on from there; and a machine from the bench learns from the state what was
        answered. A person may (``force``), as when all disks that had it are gone.

        Going on from one's own record takes nothing over: nobody else was awake since. With the embedded hub
        nobody contends for the record of another; the baton comes with all the state (``handoff.copies``).
        """
        known = self.lease.known
        return known is not None and known.record.holder != self.lease.me and not self.current()

    def _leaves_to_others(self, now: int) -> bool:
        """Who just gave its record up does not race those it gave it up for, until one of them has taken it
        (a newer record ends ``own``) or a ttl is over. It may be given the next record at once."""
        own = self.lease.own
        if own is None:
            return False
        if own.version != self._given_up:
            self._given_up = own.version
            self._left_until = now + self.lease.timing.wait(self.lease.timing.ttl)
        return now < self._left_until

    def _may_resume(self, now: int, peers: Peers) -> bool:
        """A booting embedded holder looks at its own register, which may hold more than it remembers, and
        first tries to reach every member: one may have been forced."""
        return self._own_register_read and self._has_asked_around(now, peers)

    def _has_asked_around(self, now: int, peers: Peers) -> bool:
        """After a start: whether every member has shown its newest record, or had a ttl to do so. A machine
        whose own record that is was awake, and knows."""
        known = self.lease.known
        assert known is not None
        waited = now >= self.booted + self.lease.timing.ttl or self.lease.mutations.ask_nobody_after_boot
        if waited or known.record.incarnation == self.lease.incarnation:
            self._asking_around = False
        else:
            others = {*known.record.electorate, *known.record.benched} - {self.lease.me}
            self._asking_around = not all(peers.compared(machine) for machine in others)
        return not self._asking_around

    def _reason(self, known: KnownRecord) -> str:
        record = known.record
        if record.moves:
            return "hub moved"
        if record.holder == self.lease.me:
            return "restarted" if record.incarnation != self.lease.incarnation else "took back"
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
        if kind != "contend" and (state_head := self.vouched()):
            record = msgspec.structs.replace(record, state_head=state_head)
        return self.lease.begin_swap(record, kind, now, self._expected())

    def _expected(self) -> str | None:
        """The version a swap of ours replaces: our own register's tip, or the newest record known, or what a
        new register held when the lease was moved there."""
        known = self.lease.known
        if self.lease.baton:
            return self.own_tip
        if known is not None and known.record.hub is not None and known.record.moves:
            return known.record.hub.tip
        return known.version if known is not None else None

    def begin(self, record: LeaseRecord, kind: SwapKind, now: int) -> SendSwap:
        """Begin a swap that a command asked for (found, release, close, open, force)."""
        return SendSwap(self._begin(record, kind, now))

    def on_won(self, won: KnownRecord, now: int) -> None:
        """The swap landed. A new holder's first round is short and immediate."""
        opening = self.lease.open is not None and self.lease.open.kind == "contend"
        self._settled()
        if self.lease.baton:
            self.own_tip, self._tip_since = won.version, now
        self.lease.on_won(won, now)
        self._opening = opening
        if opening:
            self.membership.forget_rounds()
            self._next_round = now
        self._next_read = now + self.lease.timing.ttl

    def on_lost(self, seen: KnownRecord | None, now: int) -> None:
        """Somebody else's record is there: read it, and stop if it is newer."""
        self._settled()
        self.count("swaps_lost")
        self.lease.on_lost(seen, now)
        self._next_read = now
        self._swap_again = now + self.lease.timing.round

    def on_unknown(self, now: int, attempt: int) -> None:
        """The reply was lost: the same commit is sent again until the register is seen to differ."""
        self.count("swaps_unknown")
        self._sending = False
        if self.lease.mutations.forget_unknown:
            self.lease.abandon_unsent()
            return
        self._retry_at = now + min(200_000 << min(attempt, 5), 5_000_000)

    def on_unsent(self, now: int) -> None:
        """The hub could not even be asked; nothing left this machine."""
        self._settled()
        self._wait_until = self._swap_again = now + self.lease.timing.round
        self.lease.abandon_unsent()

    def _settled(self) -> None:
        self._sending = False
        self._retry_at = None

    # -- reports -----------------------------------------------------------------------------------

    def on_read(self, seen: KnownRecord | None, known_before: tuple[int, int], began: int, now: int) -> None:
        """The register was read. What another register than the present one holds is no news."""
        self._reading = False
        if self._read_at != self.lease.hub and not self.lease.mutations.old_hub_is_news:
            self._next_read = now
            return
        if seen is not None and known_before <= seen.record.order < self.lease.order:
            self.count("reads_overtaken")
        suspicious = self.lease.suspicion is not None
        if self.lease.baton:
            if began > self._tip_since:
                self.on_own_register(seen, now)
        else:
            self.lease.on_read(seen, known_before, began, now)
        again = self.lease.suspicion is not None and not suspicious
        self._next_read = now + (self.lease.timing.round // 4 if again else self._read_pace(now))

    def on_own_register(self, seen: KnownRecord | None, now: int) -> None:
        """What our embedded register holds: only our own instances. Its tip is what our next swap replaces,
        and it may be newer than what we remember: a swap may land while its writer crashes."""
        self.own_tip = seen.version if seen is not None else None
        self._own_register_read = True
        if seen is not None and seen.record.order > self.lease.order:
            self.lease.learn(seen, now)

    def read_now(self, now: int) -> None:
        """Somebody has reason to think that the register has changed: look now, not at the next turn."""
        self._next_read = now

    def on_hub_moved(self, now: int) -> None:
        """The lease goes on in another register: look at that one now."""
        self.own_tip = None
        self._own_register_read = False
        self._next_read = now

    def on_read_failed(self, now: int) -> None:
        """The hub did not answer."""
        self._reading = False
        self.count("hub_unreachable")
        self._next_read = now + self.lease.timing.round

    def _read_pace(self, now: int) -> int:
        """A lapsed holder reads every round: it goes on only when a later read still shows its record."""
        ttl = self.lease.timing.ttl
        if self.lease.baton:
            return 10 * ttl
        if self.lease.holding is None:
            return 5 * ttl
        if self.lease.mutations.lone_reads_nothing and self.lease.deadline == FOREVER:
            return FOREVER
        return ttl if self.lease.may_act(now) else self.lease.timing.round

    def on_promise(self, machine: str, version: str, began: int, now: int) -> None:
        """A machine promised in a round begun at ``began``."""
        self.membership.answered(machine)
        self.lease.on_promise(machine, version, began, now)

    def on_miss(self, machine: str) -> None:
        """A machine did not promise in time. In a new holder's first round that benches it at once."""
        self.membership.missed(machine)
        own = self.lease.holding
        if self._opening and own is not None and machine in own.others:
            self.membership.wishes.bench[machine] = "silent when this machine took over"

    def on_round_over(self) -> None:
        """The opening round is over; later ones keep the ordinary pace."""
        self._opening = False

    def on_slow(self, machine: str) -> None:
        """An electorate member does not acknowledge rows: bench it rather than let every message wait."""
        self.bench(machine, "too slow to keep up")

    def bench(self, machine: str, why: str) -> None:
        """Take an electorate member out with the next swap; it comes back when it is stable and caught up."""
        own = self.lease.holding
        if own is not None and machine in own.others:
            self.membership.wishes.bench[machine] = why

    def count(self, name: str) -> None:
        """One more of what is normal but worth showing."""
        self.counters[name] = self.counters.get(name, 0) + 1
