"""The records that may follow a given one, each by the rule that allows it. Nothing here is signed."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from instar_node.build import Build
from instar_node.coordination.lease_mutations import Mutations
from instar_node.coordination.lease_state import LeaseTiming
from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord, next_generation


class Author(NamedTuple):
    """Who writes a record: its future holder."""

    me: str
    incarnation: str
    timing: LeaseTiming
    build: Build | None = None
    """The program that it runs."""


class Label(NamedTuple):
    """What people read in a record, and its randomness."""

    reason: str
    at: str
    nonce: str


def replace_record(record: LeaseRecord, **changes: object) -> LeaseRecord:
    """``record`` with fields changed; msgspec's own ``replace`` is untyped for keyword splats."""
    return msgspec.structs.replace(record, **changes)


def founding(author: Author, label: Label, hub: HubPlace | None) -> LeaseRecord:
    """Epoch 1 of a new mesh with its author alone in it."""
    return LeaseRecord(
        epoch=1,
        serial=1,
        prev=None,
        holder=author.me,
        incarnation=author.incarnation,
        electorate=(author.me,),
        benched=(),
        ttl_ms=author.timing.ttl // 1_000,
        bench_ttl_ms=author.timing.bench_ttl // 1_000,
        hub=hub,
        build=author.build,
        **label._asdict(),
    )


def following(known: KnownRecord, author: Author, label: Label, epochs: int = 1) -> LeaseRecord:
    """The first record of its author's tenure, so many epochs after ``known`` and with the same machines. It
    lies where ``known`` says that the lease goes on."""
    old = known.record
    return replace_record(
        old,
        epoch=old.epoch + epochs,
        serial=old.serial + epochs,
        prev=known.version,
        holder=author.me,
        incarnation=author.incarnation,
        ttl_ms=author.timing.ttl // 1_000,
        bench_ttl_ms=author.timing.bench_ttl // 1_000,
        build=author.build,
        state="held",
        successor=None,
        signature=b"",
        **label._asdict(),
    )


def takeover(
    known: KnownRecord, author: Author, label: Label, *, planned: bool, mutations: Mutations
) -> LeaseRecord:
    """A takeover of ``known``: epoch + 1.

    A planned handoff (token) keeps the former holder in the electorate; otherwise it is benched. A machine
    that comes from the bench may miss rows of everybody else of the old electorate.
    """
    old, me = known.record, author.me
    electorate, benched = {*old.electorate, me}, {*old.benched} - {me}
    stays = (planned and not mutations.handoff_benches_holder) or mutations.former_holder_stays
    if old.holder != me and not stays:
        electorate.discard(old.holder)
        benched.add(old.holder)
    if mutations.bench_into_electorate:
        electorate, benched = electorate | benched, set()
    incomplete = {*old.incomplete} - {me}
    if me in old.benched and not mutations.bench_not_incomplete:
        incomplete |= {*old.electorate, old.holder} - {me}
    return replace_record(
        following(known, author, label),
        electorate=tuple(sorted(electorate)),
        benched=tuple(sorted(benched)),
        incomplete=tuple(sorted(incomplete)),
    )


def forced(
    known: KnownRecord,
    disputed: tuple[KnownRecord, ...],
    author: Author,
    label: Label,
    mutations: Mutations,
) -> LeaseRecord:
    """A person vouched for every unreachable machine, or chose one of several lines: a generation above all
    of them, everybody else of any of them benched."""
    lines = [known.record, *(other.record for other in disputed if not mutations.heal_below_other_line)]
    highest = max(old.epoch for old in lines)
    machines = {machine for old in lines for machine in (*old.electorate, *old.benched, old.holder)}
    others = tuple(sorted(machines - {author.me}))
    return replace_record(
        following(known, author, label),
        epoch=highest + 1 if mutations.force_one_epoch_up else next_generation(highest),
        serial=max(old.serial for old in lines) + 1,
        electorate=(author.me,),
        benched=others,
        incomplete=() if mutations.bench_not_incomplete else others,
        origin=label.nonce,
    )


def opening(closing: KnownRecord, author: Author, label: Label) -> LeaseRecord:
    """The first record of the successor's own register, following a closing that named it."""
    old, me = closing.record, author.me
    return replace_record(
        following(closing, author, label),
        electorate=tuple(sorted({*old.electorate, me})),
        benched=tuple(sorted({*old.benched} - {me})),
        incomplete=tuple(sorted({*old.incomplete} - {me})),
    )


def renewal(known: KnownRecord, label: Label, changes: dict[str, object]) -> LeaseRecord:
    """The holder's own next record in the same epoch (bench, admit, renew, release, close)."""
    old = known.record
    return replace_record(
        old,
        serial=old.serial + 1,
        prev=known.version,
        signature=b"",
        **label._asdict(),
        **changes,
    )


def moving(known: KnownRecord, label: Label, hub: HubPlace) -> LeaseRecord:
    """The holder's last word in the register it leaves, naming the one that takes the next record. Onto its
    own disk only the holder itself can follow."""
    successor = None if hub.url else known.record.holder
    return renewal(known, label, {"state": "closed", "successor": successor, "hub": hub})
