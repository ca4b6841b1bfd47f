"""The ledger as a state machine: any sequence of steps, refused or not, keeps the promises."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from instar_node.contracts import Placement
from instar_node.delivery import steps, tables
from instar_node.delivery.conversation import Window, read_page
from instar_node.delivery.entries import GENESIS, Mark, check_follows, decode_message
from instar_node.delivery.loading import load_state
from instar_node.delivery.rows import (
    Grant,
    MessageRow,
    Rank,
    Reservation,
    Status,
    digest_of,
    join,
    public_key,
    reply_id,
)
from instar_node.delivery.state import LedgerState
from instar_node.delivery.steps import Incoming
from instar_node.delivery.transaction import Transaction
from instar_node.errors import InstarError
from instar_node.storage import schema

T = TypeVar("T")
KEYS = ["local:t:1", "local:t:2", "local:u:3"]
keys = st.sampled_from(KEYS)
WINDOWS = [
    Window("u", 0, 99, backwards=False),
    Window("t", 0, 99, backwards=False),
    Window("t", 2, 2, backwards=False),
    Window("t", 1 << 62, 3, backwards=True),
    Window("t", 4, 2, backwards=True),
]
answers = st.sampled_from([("yes",), ("no",), ("one", "two"), ()])


class LedgerMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        schema.migrate(self.connection, Path("memory"))
        self.state = LedgerState()
        self.epoch = 1
        self.n = 0
        self.grants: dict[str, Grant] = {}
        self.best: dict[str, MessageRow] = {}
        self.apply(lambda tx: steps.open_epoch(tx, 1, "a", frozenset()))

    @rule()
    def save(self) -> None:
        self.apply(lambda tx: tx.save() or True)

    @rule()
    def die_and_start_again(self) -> None:
        self.state = load_state(self.connection)

    def apply(self, step: Callable[[Transaction], T]) -> T | None:
        """Run a step; a refusal must leave nothing behind."""
        tx = Transaction(self.connection, self.state)
        try:
            result = step(tx)
        except InstarError:
            assert tx.entries == []
            assert tx.rows == {}
            return None
        self.state.absorb(tx.finish())
        return result

    def row(self, key: str) -> MessageRow | None:
        return self.state.known(key) or tables.load_row(self.connection, key)

    @rule(key=keys, text=st.sampled_from(["hi", "ho"]))
    def record(self, key: str, text: str) -> None:
        known = self.row(key)
        topic = key.split(":")[1]
        done = self.apply(
            lambda tx: steps.record(
                tx, self.epoch, Incoming(key, topic, text, "", "local", "", f"{self.n}", "a")
            )
        )
        if known is not None and known.origin is not None:
            assert (done is None) == (known.origin.text != text)
            assert done is None or done.duplicate
        else:
            assert done is not None
            assert not done.duplicate

    @rule(key=keys)
    def begin(self, key: str) -> None:
        before, self.n = self.row(key), self.n + 1
        grant = Grant(self.epoch, self.n)
        if self.apply(lambda tx: steps.begin(tx, self.epoch, key, grant)) is not None:
            assert before is not None
            assert before.reservations == ()
            self.grants[key] = grant

    @rule(key=keys, replies=answers, under=st.sampled_from(["newest", "older epoch", "unwritten"]))
    def reserve(self, key: str, replies: tuple[str, ...], under: str) -> None:
        """``unwritten``: the grant was given, and the disk was full when it was to be written."""
        self.n += 1
        grant = self.grants.get(key, Grant(0, 1))
        if under != "newest":
            grant = Grant(self.epoch if under == "unwritten" else self.epoch - 1, self.n)
        before = self.row(key)
        done = self.apply(lambda tx: steps.reserve(tx, self.epoch, key, grant, replies, "a"))
        if done is not None:
            assert before is not None
            assert (before.grant, under) == (grant, "newest") or under == "unwritten"
            assert done.grant == grant
            assert before.reservations == ()
            assert done.rank is Rank.RESERVED

    @rule(
        key=keys,
        kind=st.sampled_from(["wait", "abandon", "hold", "reject", "take_over", "advance", "deliver"]),
    )
    def other_step(self, key: str, kind: str) -> None:
        grant, epoch = self.grants.get(key, Grant(0, 1)), self.epoch
        if kind == "deliver":
            row = self.row(key)
            if row is not None and row.reservation is not None:
                self.apply(lambda tx: steps.delivered(tx, epoch, key, "0:hook"))
            return
        step: Callable[[Transaction], object] = {
            "wait": lambda tx: steps.wait_for_person(tx, epoch, key, grant),
            "abandon": lambda tx: steps.abandon(tx, epoch, key, grant, "why"),
            "hold": lambda tx: steps.hold(tx, epoch, key, "why"),
            "reject": lambda tx: steps.reject(tx, epoch, key, "why"),
            "take_over": lambda tx: steps.take_over(tx, epoch, key),
            "advance": lambda tx: steps.advance_cursor(tx, epoch, key),
        }[kind]
        self.apply(step)

    @rule(key=keys)
    def commit(self, key: str) -> None:
        row = self.row(key)
        if row is not None and row.reservation is not None and row.origin is not None:
            digest = row.reservation.digest
            self.apply(lambda tx: steps.commit(tx, self.epoch, key, digest, "", "a"))
            after = self.row(key)
            assert after is not None
            assert after.rank >= Rank.COMMITTED

    @rule(owner=st.sampled_from("ab"))
    def place(self, owner: str) -> None:
        self.n += 1
        self.apply(
            lambda tx: steps.place(tx, self.epoch, Placement("t", owner, self.epoch, self.n, "placed"))
        )

    @rule(key=keys, replies=answers)
    def another_machine_reports(self, key: str, replies: tuple[str, ...]) -> None:
        """It had reserved an answer in an epoch of its own, and perhaps committed it."""
        reservation = Reservation(digest_of(replies), self.epoch, "b", replies)
        offered = MessageRow(key, Status(Rank.RESERVED, self.epoch), reservations=(reservation,))
        self.apply(lambda tx: steps.adopt(tx, self.epoch, "peer", [offered], []))

    @rule(key=keys, taken_up=st.booleans())
    def another_machine_reports_it_under_other_numbers(self, key: str, taken_up: bool) -> None:
        """It had ``taken_up`` the message in an epoch of its own and perhaps committed the same answer there,
        or it only did that."""
        row = self.row(key)
        if row is not None and row.origin is not None:
            origin = row.origin
            if taken_up:
                origin = msgspec.structs.replace(origin, epoch=self.epoch, seq=origin.seq + 7)
            commit = row.commit and msgspec.structs.replace(row.commit, epoch=self.epoch, seq=origin.seq + 1)
            offered = msgspec.structs.replace(row, origin=origin, commit=commit)
            self.apply(lambda tx: steps.adopt(tx, self.epoch, "peer", [offered], []))

    @rule(machines=st.sets(st.sampled_from("bc"), min_size=1))
    def machines_are_missing(self, machines: set[str]) -> None:
        self.apply(lambda tx: steps.miss(tx, self.epoch, frozenset(machines)))

    @rule(machine=st.sampled_from("bc"))
    def one_that_is_missing_reports(self, machine: str) -> None:
        self.apply(lambda tx: steps.report(tx, self.epoch, machine))

    @rule(cut=st.integers(0, 4))
    def follow_a_holder_that_lacks_the_last_entries(self, cut: int) -> None:
        marks = [entry.mark for entry in tables.entries_after(self.connection, GENESIS.position)]
        common: Mark = ([GENESIS, *marks])[max(0, len(marks) - cut)]
        self.apply(lambda tx: tx.truncate(common) or True)
        self.memory_equals_disk()
        self.new_epoch()

    @rule()
    def new_epoch(self) -> None:
        self.epoch += 1
        self.apply(lambda tx: steps.open_epoch(tx, self.epoch, "a", frozenset()))
        self.grants.clear()

    @invariant()
    def no_row_ever_goes_back(self) -> None:
        for key in KEYS:
            row, best = self.row(key), self.best.get(key)
            if row is None:
                assert best is None
                continue
            if best is not None:
                assert row.status >= best.status
                assert row.grant >= best.grant
                assert {r.digest for r in best.reservations} <= {r.digest for r in row.reservations}
                if best.commit is not None:
                    assert row.reservation is not None
                    assert best.reservation is not None
                    assert row.reservation.replies == best.reservation.replies
            self.best[key] = row

    @invariant()
    def memory_equals_disk(self) -> None:
        loaded = load_state(self.connection)
        assert loaded.open == self.state.open
        assert loaded.topics == self.state.topics
        assert loaded.placements == self.state.placements
        assert loaded.positions == self.state.positions
        assert (loaded.opened_by, loaded.incomplete) == (self.state.opened_by, self.state.incomplete)
        assert loaded.unsaved.rows == self.state.unsaved.rows
        assert loaded.unsaved.since == self.state.unsaved.since
        assert (loaded.head, loaded.totals) == (self.state.head, self.state.totals)

    @invariant()
    def the_log_is_whole_and_comes_to_the_rows_in_any_order(self) -> None:
        prev, parts = GENESIS, []
        for entry in tables.entries_after(self.connection, GENESIS.position):
            check_follows(prev, entry)
            prev = entry.mark
            if (part := decode_message(entry)) is not None:
                parts.append(part)
        assert prev == self.state.head
        random.Random(len(parts)).shuffle(parts)
        rows: dict[str, MessageRow] = {}
        for part in parts + parts[:3]:
            rows[part.key] = join(rows[part.key], part) if part.key in rows else part
        assert rows == {key: row for key in KEYS if (row := self.row(key)) is not None}

    @invariant()
    def no_two_lines_share_a_number_and_each_is_found_where_it_stands(self) -> None:
        rows = [row for key in KEYS if (row := self.row(key)) is not None and row.origin is not None]
        lines = [line for row in rows for line in lines_of(row)]
        assert len({(topic, seq) for topic, seq, _, _ in lines}) == len(lines)
        for window in WINDOWS:
            in_window = sorted(line for line in lines if line[0] == window.topic and line[1] in window)
            chosen = in_window[-window.limit :] if window.backwards else in_window[: window.limit]
            newer = self.state.unsaved.of_topic(window.topic)
            shown = [(line.seq, line.role, line.key) for line in read_page(self.connection, window, newer)]
            assert shown == [
                (seq, "user", public_key(key)) if part == 0 else (seq, "agent", reply_id(key, part - 1))
                for _, seq, key, part in chosen
            ]


def lines_of(row: MessageRow) -> list[tuple[str, int, str, int]]:
    """Topic, number, key and part of each line of a message and of its committed answer."""
    assert row.origin is not None
    lines = [(row.origin.topic, row.origin.seq, row.key, 0)]
    if row.commit is not None and row.reservation is not None:
        count = len(row.reservation.replies)
        lines += [(row.origin.topic, row.commit.seq + n, row.key, n + 1) for n in range(count)]
    return lines


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLedger = LedgerMachine.TestCase
