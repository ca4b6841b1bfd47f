"""``FencedLease``: who may act and who may contend, as pure rules.

At most one machine acts, under any loss, delay, duplication and reordering of messages, crashes, restarts,
suspend, clocks of any reading whose *rates* differ by at most the configured drift, and swaps whose outcome
is unknown, provided that the hub is honest and atomic. The idea:

* Authority is the epoch of the newest record in one register that only compare-and-swap changes.
* The holder may act for ``ttl`` from *before* it began the last swap it won, or from before the oldest of the
  last promises of every other machine of its electorate.
* A member of the electorate may swap ``epoch + 1`` onto a version only ``wait(ttl)`` after it *first saw*
  that version and after its own last promise, both on its own clock. ``wait`` stretches the time by the
  drift, so the holder has stopped by its own clock before any contender starts by its own.
* Machines that stopped answering are *benched*: no promise of theirs is needed any more, and in return they
  wait ``bench_ttl`` and the holder renews by a swap before that.

Nothing here does I/O, reads a clock or draws randomness: every method takes ``now``, microseconds on this
machine's own sleep-counting clock. State that must survive a crash is ``DurableLease``; whoever drives this
object stores it *before* any message or swap that depends on it leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord, next_generation

SwapKind = Literal["contend", "renew", "release", "close"]

FOREVER = 1 << 62
"""A deadline that never comes (microseconds)."""


@dataclass(frozen=True)
class LeaseTiming:
    """Times of the lease, microseconds; ``drift`` is the largest clock-rate error ρ of any machine."""

    ttl: int
    round: int
    bench_ttl: int
    drift: float

    def wait(self, duration: int) -> int:
        """How long a contender waits on its own clock until ``duration`` is over on every other.

        Holder stops at real time ≤ s + d/(1−ρ), contender starts at ≥ s + w/(1+ρ): w ≥ d·(1+ρ)/(1−ρ).
        """
        return math.ceil(duration * (1 + self.drift) / (1 - self.drift))


@dataclass(frozen=True)
class Mutations:
    """Test seam: each flag switches one rule off, to show that a test notices. All false in the product."""

    promise_while_swap_open: bool = False
    time_from_reply: bool = False
    no_margin: bool = False
    majority: bool = False
    no_bench_bound: bool = False
    act_after_ceased: bool = False
    adopt_released: bool = False
    trust_earlier_incarnation: bool = False
    lone_acts_without_swap: bool = False
    ignore_newer_register: bool = False
    compare_read_with_later: bool = False
    promise_not_waited_out: bool = False
    benched_waits_short: bool = False
    benched_takes_release: bool = False
    bench_into_electorate: bool = False
    ack_by_one_electorate: bool = False
    forget_unknown: bool = False


NO_MUTATIONS = Mutations()


class DurableLease(msgspec.Struct, frozen=True):
    """What a machine must not forget in a crash.

    ``newest`` is the newest record ever seen (rule 8: lower in the register means a rewound hub), ``ceased``
    the versions this machine gave up for good, ``evidence`` why it stopped acting until a person heals,
    ``declined`` closings this machine refused to open.
    """

    newest: KnownRecord | None = None
    ceased: tuple[str, ...] = ()
    declined: tuple[str, ...] = ()
    evidence: str | None = None


@dataclass
class Tenure:
    """One record of ours that is, or may be, the current value of the register.

    ``started`` is the instant before its swap was sent; ``proven`` the instant up to which it is known that
    nobody else may act before ``proven + ttl``.
    """

    record: LeaseRecord
    version: str | None
    started: int
    proven: int


@dataclass
class OpenSwap(Tenure):
    """An own swap whose outcome is not known yet. ``expected`` is the version it replaces, ``hub`` the place
    of the register it goes to (``None``: the one of the founding)."""

    expected: str | None = None
    kind: SwapKind = "renew"
    hub: HubPlace | None = None


Refusal = str
"""Why something may not be done, as a stable name."""


@dataclass
class FencedLease:
    """The state of one machine in the protocol, and the rules over it.

    Args:
        me: This machine's id.
        incarnation: Random name of this process start.
        timing: Durations and drift.
        durable: What was stored before; empty for a new machine.
        baton: True with an embedded hub, where only the holder writes its own register and nothing expires.
            Given for the hub of the founding; a record that names its hub overrides it.
    """

    me: str
    incarnation: str
    timing: LeaseTiming
    durable: DurableLease = field(default_factory=DurableLease)
    baton: bool = False
    first_seen: int | None = None
    own: Tenure | None = None
    open: OpenSwap | None = None
    promised: dict[str, int] = field(default_factory=dict)
    """Holder: for each machine the start of the newest round it promised in."""
    last_promise: int | None = None
    """Member: when this machine last promised, to anybody."""
    confirmed: int | None = None
    """Holder: start of the newest read that showed our own record."""
    token: tuple[str, str] | None = None
    """``(version, signer)`` of a yield token naming this machine."""
    suspicion: tuple[int, int] | None = None
    """A register value below what was known, seen once; the second read makes it evidence."""
    mutations: Mutations = NO_MUTATIONS

    def __post_init__(self) -> None:
        if self.known is not None:
            self._follow(self.known.record)

    # -- what is known -----------------------------------------------------------------------------

    @property
    def known(self) -> KnownRecord | None:
        """The newest record this machine knows of."""
        return self.durable.newest

    @property
    def hub(self) -> HubPlace | None:
        """Where the register lies, by the newest record known; ``None``: where the mesh was founded."""
        return self.known.record.hub if self.known else None

    @property
    def order(self) -> tuple[int, int]:
        """``(epoch, serial)`` of the newest record known; ``(0, 0)`` when there is none."""
        return self.known.record.order if self.known else (0, 0)

    @property
    def epoch(self) -> int:
        return self.order[0]

    def boot(self, now: int) -> None:
        """Start counting: promises and first sights were forgotten in the crash, so waits start now."""
        if self.known is not None:
            self.first_seen = now
            if self.mutations.trust_earlier_incarnation and self.known.record.holder == self.me:
                self.own = Tenure(self.known.record, self.known.version, now, now)

    # -- the holder's validity -----------------------------------------------------------------------

    def deadline(self, now: int) -> int:
        """Until when this machine may act, microseconds; in the past (or 0) when it may not.

        While an own swap is open, either record may be the current one, so the tighter bound of both holds.
        """
        if self.own is None or self.durable.evidence is not None or self._has_ceased(self.own.version):
            return 0
        if self.own.record.state != "held":
            return 0
        if self.baton:
            return FOREVER
        bound = self._bound(self.own)
        if self.open is not None and self.open.kind == "renew":
            bound = min(bound, self._bound(self.open))
        return bound

    def _bound(self, tenure: Tenure) -> int:
        record = tenure.record
        lone = all(machine == self.me for machine in record.electorate)
        bound = FOREVER if lone else tenure.proven + record.ttl_ms * 1_000
        if record.benched and not self.mutations.no_bench_bound:
            bound = min(bound, tenure.started + record.bench_ttl_ms * 1_000)
        return bound

    def may_act(self, now: int) -> bool:
        """Whether this machine may start an effect at ``now``."""
        return now < self.deadline(now)

    def acting_epoch(self, now: int) -> int | None:
        """The fencing token of an effect started now, or ``None``."""
        return self.own.record.epoch if self.own is not None and self.may_act(now) else None

    def ack_set(self) -> frozenset[str]:
        """Machines, without this one, whose copy an acknowledgement needs: union over possible records."""
        members: set[str] = set()
        if self.own is not None:
            members.update(self.own.record.electorate)
        if self.open is not None and not (self.own and self.mutations.ack_by_one_electorate):
            members.update(self.open.record.electorate)
        return frozenset(members - {self.me})

    def _has_ceased(self, version: str | None) -> bool:
        return version in self.durable.ceased and not self.mutations.act_after_ceased

    # -- learning records ----------------------------------------------------------------------------

    def learn(self, seen: KnownRecord, now: int) -> None:
        """Take in an authentic record from any source; newer than known stops or confirms this machine."""
        record = seen.record
        if record.order < self.order:
            return
        if record.order == self.order:
            self._compare_twins(seen)
            return
        self._check_succession(record)
        self.durable = msgspec.structs.replace(self.durable, newest=seen)
        self._follow(record)
        self.first_seen = now
        self.suspicion = None
        self.token = None
        if self.open is not None and record.nonce == self.open.record.nonce:
            self._settle_won(seen)
        elif self.own is not None and not self.mutations.ignore_newer_register:
            self.own = None
            self.open = None
        else:
            self.open = None

    def _follow(self, record: LeaseRecord) -> None:
        """The signed record says where the register lies, and so whether the lease is a baton."""
        if record.hub is not None:
            self.baton = not record.hub.url

    def _settle_won(self, seen: KnownRecord) -> None:
        swap, self.open = self.open, None
        assert swap is not None
        if swap.record.state != "held" and not self.mutations.adopt_released:
            self.own = None
            return
        if swap.record.incarnation == self.incarnation:
            # The record as it was seen, because that one carries our signature: members are shown it.
            proven = max(swap.started, swap.proven)
            self.own = Tenure(seen.record, seen.version, swap.started, proven)

    def _compare_twins(self, seen: KnownRecord) -> None:
        known = self.known
        if known is None or seen.version == known.version:
            return
        if seen.record.holder != known.record.holder or seen.record.nonce != known.record.nonce:
            self._stop_for_evidence(
                f"two records {seen.record.order} exist: {known.version[:12]} of {known.record.holder} and "
                f"{seen.version[:12]} of {seen.record.holder}"
            )

    def _check_succession(self, record: LeaseRecord) -> None:
        """Rule 8: whoever follows our own held record must name exactly it (or our open swap) as ``prev``.

        Only an immediate successor can be judged; a later record of the chain says nothing about ours.
        """
        if self.own is None or self.baton or record.epoch // 1_000_000 != self.epoch // 1_000_000:
            return
        ours = self.own.record
        immediate = record.serial == ours.serial + 1
        mine = self.open is not None and record.nonce == self.open.record.nonce
        if immediate and not mine and record.prev != self.own.version:
            self._stop_for_evidence(f"epoch {record.epoch} of {record.holder} does not follow our own record")

    def _stop_for_evidence(self, what: str) -> None:
        self.durable = msgspec.structs.replace(self.durable, evidence=what)
        self.own = None

    # -- reading the register ------------------------------------------------------------------------

    def on_read(self, seen: KnownRecord | None, known_before: tuple[int, int], began: int, now: int) -> None:
        """A read of the register came back.

        Args:
            seen: The authentic tip, or ``None`` when the register is absent.
            known_before: ``order`` when the read began: a read says nothing about what was learned later.
            began: When it began.
            now: Now.
        """
        if seen is None and self.known is not None and self.known.record.moves:
            return  # the new register has no record yet
        order = seen.record.order if seen is not None else (0, 0)
        floor = self.order if self.mutations.compare_read_with_later else known_before
        if order < floor:
            if self.suspicion is None or self.suspicion != order:
                self.suspicion = order
            else:
                self._stop_for_evidence(
                    f"the hub shows epoch {order[0]} record {order[1]}, but epoch {floor[0]} record "
                    f"{floor[1]} is known: it was rewound or replaced"
                )
            return
        self.suspicion = None
        if seen is None:
            return
        self.learn(seen, now)
        if self.own is not None and seen.version == self.own.version:
            self.confirmed = began

    # -- promises --------------------------------------------------------------------------------------

    def answer_promise(self, asker: str, seen: KnownRecord, now: int) -> Refusal | None:
        """A holder asks this machine not to contend for a ttl. ``None`` = promised; else the refusal."""
        self.learn(seen, now)
        record = seen.record
        if self.durable.evidence is not None:
            return "split-brain"
        if record.holder != asker or record.state != "held":
            return "not-holder"
        if self.known is None or seen.version != self.known.version:
            return "knows-newer"
        if self.own is not None:
            return "holds-lease"
        if self.open is not None and not self.mutations.promise_while_swap_open:
            return "own-swap-open"
        self.last_promise = now
        return None

    def can_use_promises(self, now: int) -> bool:
        """Whether a full round would make this holder valid; otherwise it must not ask for one."""
        own = self.own
        if own is None or self.durable.evidence is not None or self._has_ceased(own.version):
            return False
        if own.record.state != "held":
            return False
        if own.record.benched and not self.baton:
            return now < own.started + own.record.bench_ttl_ms * 1_000
        return True

    def on_promise(self, member: str, version: str, began: int, now: int) -> None:
        """``member`` promised for ``version`` in a round begun at ``began``.

        Rule 6: a holder whose validity lapsed goes on only when everybody promised after the lapse *and* a
        read begun after the lapse still showed its record.
        """
        own = self.own
        if own is None or own.version != version or self._has_ceased(version):
            return
        start = now if self.mutations.time_from_reply else began
        self.promised[member] = max(self.promised.get(member, 0), start)
        lapsed_at = self.deadline(began)
        for tenure in (own, self.open):
            if tenure is None or (tenure is self.open and self.open.kind != "renew"):
                continue
            proven = self._all_promised(tenure.record)
            lapsed = now >= lapsed_at
            if lapsed and not self.baton and (proven < lapsed_at or (self.confirmed or -1) < lapsed_at):
                continue
            tenure.proven = max(tenure.proven, proven)

    def _all_promised(self, record: LeaseRecord) -> int:
        """Start of the oldest among the newest promises of the whole electorate; 0 if one never promised."""
        others = [machine for machine in record.electorate if machine != self.me]
        if not others:
            return 0
        starts = sorted((self.promised.get(machine, 0) for machine in others), reverse=True)
        if self.mutations.majority:
            return starts[len(record.electorate) // 2 - 1]
        return starts[-1]

    # -- contending ------------------------------------------------------------------------------------

    def may_contend_at(self, now: int) -> int | Refusal:
        """When (microseconds, own clock) this machine may swap ``epoch + 1`` onto the newest version.

        Returns:
            An instant, possibly in the past, or the reason why never (without a new record).
        """
        known = self.known
        if self.durable.evidence is not None:
            return "split-brain"
        if known is None or self.first_seen is None:
            return "no-record"
        if known.record.moves:
            return self._may_open_moved(known, now)
        if self.baton:
            return self._may_reopen(known, now)
        if self.own is not None and self.may_act(now):
            return "holds-lease"
        return self._member_wait(known, now)

    def _may_open_moved(self, known: KnownRecord, now: int) -> int | Refusal:
        """The lease moves to another hub: whoever closed the old register opens the new one at once, and
        after the usual wait anybody else who may contend, by compare-with-absent. Onto a machine's own disk
        only that machine can."""
        record = known.record
        if record.successor is not None:
            return now if record.successor == self.me else "needs-the-baton"
        if record.holder == self.me and record.incarnation == self.incarnation:
            return now
        return self._member_wait(known, now)

    def _member_wait(self, known: KnownRecord, now: int) -> int | Refusal:
        record = known.record
        assert self.first_seen is not None
        if self.me in record.electorate:
            return self._electorate_wait(known, now)
        if self.me in record.benched:
            if record.state == "released" and self.mutations.benched_takes_release:
                return now
            duration = record.ttl_ms if self.mutations.benched_waits_short else record.bench_ttl_ms
            return self.first_seen + self._stretched(duration)
        return "not-a-member"

    def _electorate_wait(self, known: KnownRecord, now: int) -> int:
        record = known.record
        assert self.first_seen is not None
        if record.state == "released":
            return now
        if self.token is not None and self.token[0] == known.version:
            return now
        lone = record.electorate == (self.me,) and not record.benched and record.holder == self.me
        if lone and record.incarnation != self.incarnation:
            return now
        start = self.first_seen
        if self.last_promise is not None and not self.mutations.promise_not_waited_out:
            start = max(start, self.last_promise)
        return start + self._stretched(record.ttl_ms)

    def _stretched(self, duration_ms: int) -> int:
        micros = duration_ms * 1_000
        return micros if self.mutations.no_margin else self.timing.wait(micros)

    def _may_reopen(self, known: KnownRecord, now: int) -> int | Refusal:
        """Embedded hub: only the holder's own machine may go on after a restart; a standby waits for the
        baton (``open_from_closing``) or for a person (``force_record``)."""
        record = known.record
        if record.holder != self.me:
            return "needs-the-baton"
        if record.state == "closed":
            return "baton-passed"
        if record.incarnation == self.incarnation and record.state == "held":
            return "holds-lease"
        return self.first_seen if self.first_seen is not None else now

    def contender_record(self, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """The record of a takeover of the newest version by this machine: epoch + 1.

        A planned handoff (token) keeps the former holder in the electorate; otherwise it is benched. A
        machine that comes from the bench may miss rows of everybody else of the old electorate.
        """
        known = self.known
        assert known is not None
        old = known.record
        planned = self.token is not None and self.token[0] == known.version
        from_bench = self.me in old.benched
        electorate = {*old.electorate, self.me}
        benched = {*old.benched} - {self.me}
        if old.holder != self.me and not planned:
            electorate.discard(old.holder)
            benched.add(old.holder)
        if self.mutations.bench_into_electorate:
            electorate |= benched
            benched = set()
        incomplete = set(old.incomplete) - {self.me}
        if from_bench:
            incomplete |= {*old.electorate, old.holder} - {self.me}
        return LeaseRecord(
            epoch=old.epoch + 1,
            serial=old.serial + 1,
            prev=known.version,
            holder=self.me,
            incarnation=self.incarnation,
            electorate=tuple(sorted(electorate)),
            benched=tuple(sorted(benched)),
            ttl_ms=self.timing.ttl // 1_000,
            bench_ttl_ms=self.timing.bench_ttl // 1_000,
            state_head=old.state_head,
            incomplete=tuple(sorted(incomplete)),
            reason=reason,
            at=at,
            nonce=nonce,
            hub=old.hub,
        )

    def founding_record(self, *, at: str, nonce: str) -> LeaseRecord:
        """Epoch 1 of a new mesh with this machine alone in it."""
        return LeaseRecord(
            epoch=1,
            serial=1,
            prev=None,
            holder=self.me,
            incarnation=self.incarnation,
            electorate=(self.me,),
            benched=(),
            ttl_ms=self.timing.ttl // 1_000,
            bench_ttl_ms=self.timing.bench_ttl // 1_000,
            reason="founded",
            at=at,
            nonce=nonce,
        )

    def force_record(self, *, at: str, nonce: str) -> LeaseRecord:
        """A person vouched for every unreachable machine: a new generation, everybody else benched."""
        known = self.known
        assert known is not None
        old = known.record
        others = {*old.electorate, *old.benched, old.holder} - {self.me}
        return replace_record(
            self.contender_record(reason="forced", at=at, nonce=nonce),
            epoch=next_generation(old.epoch),
            electorate=(self.me,),
            benched=tuple(sorted(others)),
            incomplete=tuple(sorted(others)),
        )

    # -- own swaps ---------------------------------------------------------------------------------------

    def next_record(self, *, reason: str, at: str, nonce: str, **changes: object) -> LeaseRecord:
        """The holder's own next record in the same epoch (bench, admit, renew, release, close)."""
        assert self.own is not None
        return replace_record(
            self.own.record,
            serial=self.own.record.serial + 1,
            prev=self.own.version,
            reason=reason,
            at=at,
            nonce=nonce,
            signature=b"",
            **changes,
        )

    def moving_record(self, hub: HubPlace, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """The holder's last word in the register it leaves, naming the one that takes the next record.

        As with a release, ``cease`` the present version before this is sent.
        """
        successor = None if hub.url else self.me
        return self.next_record(
            reason=reason, at=at, nonce=nonce, state="closed", successor=successor, hub=hub
        )

    def begin_swap(self, record: LeaseRecord, kind: SwapKind, now: int, expected: str | None) -> OpenSwap:
        """An own swap is about to be sent; at most one is open, and it stays open until it is settled.

        ``expected`` is the version it replaces: the newest one known, or with an embedded hub the tip of
        this machine's own register, which may be an older instance.
        """
        assert self.open is None, "at most one own swap is open"
        swap = OpenSwap(record, None, started=now, proven=now, expected=expected, kind=kind, hub=self.hub)
        if kind == "contend":
            self.own = None
        self.open = swap
        return swap

    def on_won(self, won: KnownRecord, now: int) -> None:
        """The register took our open swap."""
        self.learn(won, now)

    def abandon_unsent(self) -> None:
        """Our open swap never left this machine, so it can never land."""
        self.open = None

    def on_lost(self, seen: KnownRecord | None, now: int) -> None:
        """The register holds something else than what our swap expected, and not our record.

        Whatever it holds, our swap can no longer land: its expected version is gone for good.
        """
        self.open = None
        if seen is not None and seen.record.order > self.order:
            self.learn(seen, now)
        elif self.own is not None:
            self.own = None

    # -- giving the lease up -----------------------------------------------------------------------------

    def cease(self, version: str) -> None:
        """Rule 3: give this version up for good, *before* a release, token or closing leaves."""
        kept = (*self.durable.ceased[-15:], version)
        self.durable = msgspec.structs.replace(self.durable, ceased=kept)

    @property
    def holding(self) -> Tenure | None:
        """Our own record while it is neither given up nor superseded, valid at this instant or not."""
        own = self.own
        if own is None or self._has_ceased(own.version) or self.durable.evidence is not None:
            return None
        return own if own.record.state == "held" else None

    def accept_token(self, version: str, signer: str) -> bool:
        """Take a yield token: only for the newest version, from its holder, for an electorate member."""
        known = self.known
        if known is None or known.version != version or known.record.holder != signer:
            return False
        if self.me not in known.record.electorate:
            return False
        self.token = (version, signer)
        return True

    # -- the baton (embedded hub) ------------------------------------------------------------------------

    def may_open(self, closing: KnownRecord) -> Refusal | None:
        """Whether this machine may open its own register instance from ``closing``; ``None`` = yes.

        The closing must be the holder's last word about an epoch not below what is known, name this machine,
        and not have been declined before.
        """
        record = closing.record
        if self.durable.evidence is not None:
            return "split-brain"
        if record.state != "closed" or record.successor != self.me:
            return "not-named"
        if closing.version in self.durable.declined:
            return "declined-before"
        if record.order < self.order:
            return "knows-newer"
        if self.me not in record.electorate:
            return "not-in-sync"
        return None

    def opening_record(self, closing: KnownRecord, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """The first record of our own register instance, following a closing that named us."""
        old = closing.record
        return replace_record(
            old,
            epoch=old.epoch + 1,
            serial=old.serial + 1,
            prev=closing.version,
            holder=self.me,
            incarnation=self.incarnation,
            electorate=tuple(sorted({*old.electorate, self.me})),
            benched=tuple(sorted({*old.benched} - {self.me})),
            ttl_ms=self.timing.ttl // 1_000,
            bench_ttl_ms=self.timing.bench_ttl // 1_000,
            state="held",
            successor=None,
            reason=reason,
            at=at,
            nonce=nonce,
            signature=b"",
        )

    def decline(self, version: str) -> None:
        """Refuse a closing for good; with the signed refusal its author may open ``epoch + 2``."""
        kept = (*self.durable.declined[-15:], version)
        self.durable = msgspec.structs.replace(self.durable, declined=kept)

    def reopening_record(self, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """After a decline: a new instance two epochs up, so that the declined one can never collide."""
        known = self.known
        assert known is not None
        assert known.record.holder == self.me
        return replace_record(
            known.record,
            epoch=known.record.epoch + 2,
            serial=known.record.serial + 2,
            prev=known.version,
            incarnation=self.incarnation,
            state="held",
            successor=None,
            reason=reason,
            at=at,
            nonce=nonce,
            signature=b"",
        )

    # -- healing -----------------------------------------------------------------------------------------

    def heal(self) -> None:
        """A person decided which line survives; contending is possible again (by ``force_record``)."""
        self.durable = msgspec.structs.replace(self.durable, evidence=None)


def replace_record(record: LeaseRecord, **changes: object) -> LeaseRecord:
    """``record`` with fields changed; msgspec's own ``replace`` is untyped for keyword splats."""
    return msgspec.structs.replace(record, **changes)


__all__ = [
    "FOREVER",
    "NO_MUTATIONS",
    "DurableLease",
    "FencedLease",
    "LeaseTiming",
    "Mutations",
    "OpenSwap",
    "Refusal",
    "Tenure",
    "replace_record",
]
