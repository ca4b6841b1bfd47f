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

from dataclasses import dataclass, field

import msgspec

from instar_node.build import Build
from instar_node.coordination import contention, successions
from instar_node.coordination.evidence import contradiction
from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from instar_node.coordination.lease_state import (
    FOREVER,
    DurableLease,
    LeaseTiming,
    OpenSwap,
    SwapKind,
    Tenure,
)
from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord, generation
from instar_node.coordination.successions import Author, Label

Refusal = str
"""Why something may not be done, as a stable name."""

_REMEMBERED = 16
"""Versions kept in ``ceased`` and ``declined``: far more than can still be under way."""


@dataclass(slots=True)
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
    confirmed: int = -1
    """Holder: start of the newest read that showed our own record."""
    token: str | None = None
    """Version for which we have a yield token of its holder."""
    suspicion: str | None = None
    """What a read showed below what was known; a second such read makes it evidence."""
    build: Build | None = None
    """The program that runs here; a record says which one its holder runs."""
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
    def order(self) -> tuple[int, int]:
        """``(epoch, serial)`` of the newest record known; ``(0, 0)`` when there is none."""
        newest = self.durable.newest
        return (newest.record.epoch, newest.record.serial) if newest is not None else (0, 0)

    @property
    def epoch(self) -> int:
        newest = self.durable.newest
        return newest.record.epoch if newest is not None else 0

    @property
    def hub(self) -> HubPlace | None:
        """Where the register lies, by the newest record known; ``None``: where the mesh was founded."""
        newest = self.durable.newest
        return newest.record.hub if newest is not None else None

    def _follow(self, record: LeaseRecord) -> None:
        """The signed record says where the register lies, and so whether the lease is a baton."""
        if record.hub is not None:
            self.baton = not record.hub.url

    def boot(self, now: int) -> None:
        """Rule 4: promises and first sights were forgotten in the crash, so every wait begins now."""
        if self.mutations.forget_newest:
            self._store(newest=None)
        known = self.known
        if known is None:
            return
        self.first_seen = -FOREVER if self.mutations.waits_survive_boot else now
        if known.record.holder != self.me or known.record.state != "held":
            return
        lone = known.record.electorate == (self.me,) and not known.record.benched
        if self.mutations.trust_earlier_incarnation or (lone and self.mutations.lone_acts_without_swap):
            self.own = Tenure(known.record, known.version, now, now)

    # -- the holder's validity -----------------------------------------------------------------------

    @property
    def deadline(self) -> int:
        """Until when this machine may act, microseconds; 0 when it holds nothing it may act on.

        While an own swap is open, either record may be the current one, so the tighter bound of both holds.
        """
        own = self.own
        if own is None or own.version in self.durable.ceased:
            return 0
        if self.durable.evidence is not None and not self.mutations.act_on_evidence:
            return 0
        if self.baton or self.mutations.act_unsupported:
            return FOREVER
        if self.mutations.no_bench_bound:
            return own.proven + own.ttl if own.others else FOREVER
        bound, swap = own.deadline, self.open
        if swap is not None and swap.kind == "renew" and not self.mutations.deadline_of_one_record:
            bound = min(bound, swap.deadline)
        return bound

    def may_act(self, now: int) -> bool:
        """Whether this machine may start an effect at ``now``."""
        return now < self.deadline

    def acting_epoch(self, now: int) -> int | None:
        """The fencing token of an effect started now, or ``None``."""
        own = self.own
        return own.record.epoch if own is not None and now < self.deadline else None

    @property
    def holding(self) -> Tenure | None:
        """Our own record while it is neither given up nor superseded, valid at this instant or not."""
        own = self.own
        if own is None or own.version in self.durable.ceased or self.durable.evidence is not None:
            return None
        return own

    def ack_set(self) -> frozenset[str]:
        """Machines, without this one, whose copy an acknowledgement needs: union over possible records."""
        members: set[str] = set()
        if self.own is not None:
            members.update(self.own.others)
        if self.open is not None and not (self.own and self.mutations.ack_by_one_electorate):
            members.update(self.open.others)
        return frozenset(members)

    # -- learning records ----------------------------------------------------------------------------

    def learn(self, seen: KnownRecord, now: int) -> None:
        """Take in an authentic record from any source. A newer one stops this machine or confirms it; one
        that contradicts what is known is evidence of a split brain."""
        known = self.durable.newest
        if known is not None:
            if seen.version == known.version:
                return
            self._convict(known, seen)
            if seen.record.order <= known.record.order:
                return
        self._store(newest=seen)
        if self.durable.evidence is not None and self.ends_dispute(seen.record):
            self._store(evidence=None, proof=(), disputed=0)
        self._follow(seen.record)
        if not self.mutations.first_sight_kept or self.first_seen is None:
            self.first_seen = now
        self.suspicion = None
        if not self.mutations.token_for_any_version:
            self.token = None
        self._adopt_or_stop(seen, now)

    def ends_dispute(self, record: LeaseRecord) -> bool:
        """Whether a person decided, on some machine: this generation outranks all lines of the dispute."""
        later = generation(record.epoch) > generation(self.durable.disputed)
        return later or self.mutations.evidence_ends_early

    def _adopt_or_stop(self, seen: KnownRecord, now: int) -> None:
        """Rule 1. Whatever swap is open, it is settled: the register went past the version it expects."""
        swap, self.open = self.open, None
        if swap is None or seen.record.nonce != swap.record.nonce:
            if self.mutations.adopt_any_incarnation and seen.record.holder == self.me:
                self.own = Tenure(seen.record, seen.version, now, now)
            elif not self.mutations.ignore_newer_register:
                self.own = None
        elif self.mutations.ignore_newer_register and self.own is not None:
            return
        elif swap.record.state == "held" or self.mutations.adopt_released:
            # The record as it was seen, because that one carries our signature: members are shown it.
            started = now if self.mutations.time_from_win else swap.started
            self.own = Tenure(seen.record, seen.version, started, max(started, swap.proven))
        else:
            self.own = None

    def _convict(self, known: KnownRecord, seen: KnownRecord) -> None:
        if self.durable.evidence is None and (why := contradiction(known, seen, self.mutations)) is not None:
            self._stop_for_evidence(why, (known, seen))

    def accept_proof(self, one: KnownRecord, other: KnownRecord) -> bool:
        """Judge two authentic records that another machine calls a contradiction; stop if they are one,
        unless a later generation has already put an end to both lines."""
        if generation(self.epoch) <= generation(max(one.record.epoch, other.record.epoch)):
            self._convict(one, other)
        return self.durable.evidence is not None

    def _stop_for_evidence(self, what: str, proof: tuple[KnownRecord, ...]) -> None:
        epochs = [self.epoch, *(seen.record.epoch for seen in proof)]
        self._store(evidence=what, proof=proof, disputed=max(epochs))
        if not self.mutations.act_on_evidence:
            self.own = None

    def _store(self, **changes: object) -> None:
        self.durable = msgspec.structs.replace(self.durable, **changes)

    # -- reading the register ------------------------------------------------------------------------

    def on_read(self, seen: KnownRecord | None, known_before: tuple[int, int], began: int, now: int) -> None:
        """A read of ``register`` came back.

        Args:
            seen: The authentic tip, or ``None`` when the register is absent or holds what no member signed.
            known_before: ``order`` when the read began: a read says nothing about what was learned later.
            began: When it began.
            now: Now.
        """
        if seen is None:
            return  # deleted, or not made yet: nobody can swap onto it, so it is an alarm and no evidence
        floor = self.order if self.mutations.compare_read_with_later else known_before
        if self._awaits_opening(seen):
            return
        if seen.record.order < floor:
            self._suspect(seen, floor)
            return
        self.suspicion = None
        self.learn(seen, now)
        if self.own is not None and seen.version == self.own.version:
            self.confirmed = began

    def _suspect(self, seen: KnownRecord, floor: tuple[int, int]) -> None:
        """Rule 8: a register below what is known was rewound or replaced; a second read confirms it."""
        shown = f"epoch {seen.record.epoch} record {seen.record.serial}"
        what = f"the hub shows {shown}, but epoch {floor[0]} record {floor[1]} is known: "
        if self.mutations.ignore_rewind:
            return
        if self.suspicion is None and not self.mutations.alarm_at_first_read:
            self.suspicion = what
        elif self.durable.evidence is None:
            self._stop_for_evidence(what + "it was rewound or replaced", (seen,))

    def _awaits_opening(self, seen: KnownRecord) -> bool:
        """Whether the lease moves back to this register and nobody has opened it again yet."""
        known = self.known
        if known is None or known.record.hub is None or not known.record.moves:
            return False
        if self.mutations.moved_back_is_rewound:
            return False
        return seen.version == known.record.hub.tip

    # -- promises --------------------------------------------------------------------------------------

    def answer_promise(self, asker: str, seen: KnownRecord, now: int) -> Refusal | None:
        """A holder asks this machine not to contend for a ttl. ``None`` = promised; else the refusal."""
        self.learn(seen, now)
        record, known = seen.record, self.known
        if self.durable.evidence is not None:
            return "split-brain"
        if record.holder != asker or record.state != "held":
            return "not-holder"
        if (known is None or seen.version != known.version) and not self.mutations.promise_for_older:
            return "knows-newer"
        if self.own is not None:
            return "holds-lease"
        if self.open is not None and not self.mutations.promise_while_swap_open:
            return "own-swap-open"
        self.last_promise = now
        return None

    def can_use_promises(self, now: int) -> bool:
        """Whether a full round would make this holder valid. Otherwise it must not ask for one: whoever
        promises does not contend, and nobody would act. So a holder that lapsed reads the register first."""
        own = self.holding
        if own is None:
            return False
        if self.baton or self.mutations.collect_when_unable:
            return True
        swap = self.open
        if now >= own.bench_end or (swap is not None and now >= swap.bench_end):
            return False
        return not self.needs_read(now)

    def needs_read(self, now: int) -> bool:
        """Whether this holder lapsed and has not seen its record in the register since (rule 6)."""
        deadline = self.deadline
        return now >= deadline and self.confirmed < deadline and self.holding is not None

    def on_promise(self, member: str, version: str, began: int, now: int) -> None:
        """``member`` promised for ``version`` in a round begun at ``began``.

        Rule 6: a holder whose validity lapsed goes on only when everybody promised after the lapse *and* a
        read begun after the lapse still showed its record.
        """
        own = self.own
        if own is None or own.version != version or version in self.durable.ceased:
            return
        start = now if self.mutations.time_from_reply else began
        self.promised[member] = max(self.promised.get(member, 0), start)
        deadline = self.deadline
        lapsed_at = deadline if now >= deadline else None
        self._prove(own, own, lapsed_at)
        if self.open is not None and self.open.kind == "renew":
            self._prove(self.open, own if self.mutations.round_of_one_electorate else self.open, lapsed_at)

    def _prove(self, tenure: Tenure, by: Tenure, lapsed_at: int | None) -> None:
        proven = self._all_promised(by.others)
        if lapsed_at is not None and not self.baton:
            if proven < lapsed_at and not self.mutations.resume_without_round:
                return
            if self.confirmed < lapsed_at and not self.mutations.resume_without_read:
                return
        if proven > tenure.proven:
            tenure.proven = proven

    def _all_promised(self, others: tuple[str, ...]) -> int:
        """Start of the oldest among the newest promises of these machines; 0 if one never promised."""
        if not others:
            return 0
        if self.mutations.majority:
            starts = sorted((self.promised.get(machine, 0) for machine in others), reverse=True)
            return starts[(len(others) + 1) // 2 - 1]
        return min([self.promised.get(machine, 0) for machine in others])

    # -- contending ------------------------------------------------------------------------------------

    def may_contend_at(self, now: int) -> int | Refusal:
        """When (microseconds, own clock) this machine may swap ``epoch + 1`` onto the newest version.

        Returns:
            An instant, possibly in the past, or the reason why never (without a new record).
        """
        return contention.may_contend_at(self, now)

    def has_token(self, known: KnownRecord) -> bool:
        """Whether the holder of this version yielded it to us."""
        return self.token == known.version or (
            self.mutations.token_for_any_version and self.token is not None
        )

    # -- what may be written next ------------------------------------------------------------------------

    @property
    def _author(self) -> Author:
        return Author(self.me, self.incarnation, self.timing, self.build)

    def founding_record(self, *, at: str, nonce: str, hub: HubPlace | None = None) -> LeaseRecord:
        """Epoch 1 of a new mesh with this machine alone in it, on its own disk or in a hub for all."""
        return successions.founding(self._author, Label("founded", at, nonce), hub)

    def contender_record(self, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """A takeover of the newest version by this machine: epoch + 1."""
        assert self.known is not None
        return successions.takeover(
            self.known,
            self._author,
            Label(reason, at, nonce),
            planned=self.has_token(self.known),
            mutations=self.mutations,
        )

    def force_record(self, *, at: str, nonce: str) -> LeaseRecord:
        """A new generation above every line that was seen, because a person vouched for every unreachable
        machine, or chose this machine's line in a split brain."""
        assert self.known is not None
        reason = "forced" if self.durable.evidence is None else "healed"
        label = Label(reason, at, nonce)
        return successions.forced(self.known, self.durable.proof, self._author, label, self.mutations)

    def next_record(self, *, reason: str, at: str, nonce: str, **changes: object) -> LeaseRecord:
        """The holder's own next record in the same epoch (bench, admit, renew, release, close)."""
        own = self.own
        assert own is not None
        assert own.version is not None
        return successions.renewal(KnownRecord(own.record, own.version), Label(reason, at, nonce), changes)

    def moving_record(self, hub: HubPlace, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """The holder's last word in the register it leaves, naming the one that takes the next record.

        As with a release, ``cease`` the present version before this is sent.
        """
        own = self.own
        assert own is not None
        assert own.version is not None
        return successions.moving(KnownRecord(own.record, own.version), Label(reason, at, nonce), hub)

    def opening_record(self, closing: KnownRecord, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """The first record of our own register, following a closing that named us."""
        return successions.opening(closing, self._author, Label(reason, at, nonce))

    def reopening_record(self, *, reason: str, at: str, nonce: str) -> LeaseRecord:
        """After a decline: a new instance two epochs up, so that the declined one can never collide."""
        assert self.known is not None
        assert self.known.record.holder == self.me
        epochs = 1 if self.mutations.reopen_one_epoch_up else 2
        return successions.following(self.known, self._author, Label(reason, at, nonce), epochs)

    # -- own swaps ---------------------------------------------------------------------------------------

    def begin_swap(self, record: LeaseRecord, kind: SwapKind, now: int, expected: str | None) -> OpenSwap:
        """An own swap is about to be sent; at most one is open, and it stays open until it is settled.

        ``expected`` is the version it replaces: the newest one known, or with an embedded hub the tip of
        this machine's own register, which may be an older instance; ``None`` in a register yet to be made.
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

        Whatever it holds, our swap can no longer land: its expected version is gone for good. A holder stops,
        for its own record is not the current one; but an empty or garbled register (``None``) takes nobody's
        swap, so that who is valid by promises goes on until its rules end it.
        """
        self.open = None
        if seen is not None:
            self.learn(seen, now)
        if seen is not None and not self.mutations.ignore_newer_register:
            self.own = None

    # -- giving the lease up -----------------------------------------------------------------------------

    def cease(self, version: str) -> None:
        """Rule 3: give this version up for good, *before* a release, token or closing leaves."""
        if not self.mutations.act_after_ceased:
            self._store(ceased=(*self.durable.ceased[1 - _REMEMBERED :], version))

    def accept_token(self, version: str, signer: str) -> bool:
        """Take a yield token: only for the newest version, from its holder, for an electorate member."""
        known = self.known
        if known is None or known.version != version:
            return False
        if known.record.holder != signer and not self.mutations.token_from_anybody:
            return False
        if self.me not in known.record.electorate and not self.mutations.token_for_benched:
            return False
        self.token = version
        return True

    # -- the baton (embedded hub) ------------------------------------------------------------------------

    def may_open(self, closing: KnownRecord) -> Refusal | None:
        """Whether this machine may open its own register instance from ``closing``; ``None`` = yes.

        The closing must be the holder's last word about an epoch not below what is known, name this machine,
        and not have been declined before.
        """
        record, mutations = closing.record, self.mutations
        if self.durable.evidence is not None:
            return "split-brain"
        if record.state != "closed" or (record.successor != self.me and not mutations.open_unnamed):
            return "not-named"
        if closing.version in self.durable.declined:
            return "declined-before"
        if record.order < self.order and not mutations.open_older_closing:
            return "knows-newer"
        if self.me not in record.electorate and not mutations.open_from_bench:
            return "not-in-sync"
        if not contention.understands(self, record):
            return "incompatible"
        return None

    def decline(self, version: str) -> None:
        """Refuse a closing for good; with the signed refusal its author may open ``epoch + 2``."""
        if not self.mutations.decline_not_stored:
            self._store(declined=(*self.durable.declined[1 - _REMEMBERED :], version))

    # -- healing -----------------------------------------------------------------------------------------

    @property
    def pursued(self) -> bool:
        """Whether an own swap is open and still wanted: in a dispute only the one that ends it."""
        swap = self.open
        return swap is not None and (self.durable.evidence is None or self.ends_dispute(swap.record))

    def heal(self) -> None:
        """A person decided which line survives: ``force_record`` ends the dispute when it is won. What this
        machine had under way belongs to the past; the new generation outranks it wherever it lands."""
        self.own = None
        self.open = None
