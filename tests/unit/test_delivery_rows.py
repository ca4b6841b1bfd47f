"""Message rows: the laws of ``join``, and who wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from instar_node.contracts import Placement
from instar_node.delivery.rows import (
    Commit,
    Grant,
    MessageRow,
    Origin,
    Rank,
    Reservation,
    Status,
    dedupe_key,
    digest_of,
    join,
    newer_placement,
    public_key,
    reply_id,
    without_text,
)

small = st.integers(0, 3)
texts = st.sampled_from([(), ("yes",), ("no",), ("yes", "more")])
statuses = st.builds(Status, st.sampled_from(list(Rank)), small, small, st.sampled_from(["", "why"]))
origins = st.builds(
    Origin,
    small,
    small,
    st.just("t"),
    st.sampled_from(["hi", "ho"]),
    *[st.just("")] * 4,
    st.sampled_from("ab"),
)
reservations = st.builds(
    lambda epoch, machine, replies: Reservation(digest_of(replies), epoch, machine, replies),
    small,
    st.sampled_from("ab"),
    texts,
)
commits = st.builds(Commit, small, small, texts.map(digest_of), st.just(""), st.sampled_from("ab"))


def canonical(rows: list[Reservation]) -> tuple[Reservation, ...]:
    return tuple(sorted({r.digest: r for r in sorted(rows)}.values()))


rows = st.builds(
    MessageRow,
    st.just("local:t:k"),
    statuses,
    st.none() | origins,
    st.builds(Grant, small, small),
    st.lists(reservations, max_size=3).map(canonical),
    st.sets(st.sampled_from(["0:hook", "1:hook"])).map(lambda s: tuple(sorted(s))),
    st.none() | commits,
    st.sets(st.tuples(texts.map(digest_of), small)).map(lambda s: tuple(sorted(s))),
)


@st.composite
def aged_rows(draw: st.DrawFn) -> MessageRow:
    """Rows of which some were compacted. A line's number determines the line, as it does in one mesh."""
    row = draw(rows)
    epoch, seq = draw(small), draw(small)
    origin = Origin(epoch, seq, "t", f"text {epoch}.{seq}", "Ada", "local", "", "", f"m{seq}")
    unheard = tuple(sorted(draw(st.sets(st.sampled_from("abc")))))
    row = replace(row, origin=draw(st.sampled_from([None, origin])), unheard=unheard)
    return without_text(row) if draw(st.booleans()) else row


@given(aged_rows(), aged_rows(), aged_rows())
def test_compacted_rows_keep_the_laws_and_no_text_comes_back(
    a: MessageRow, b: MessageRow, c: MessageRow
) -> None:
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a
    both = join(a, b)
    if a.compacted or b.compacted:
        assert both == without_text(both)
        assert not both.open


@given(rows, rows)
def test_join_is_commutative(a: MessageRow, b: MessageRow) -> None:
    assert join(a, b) == join(b, a)


@given(rows, rows, rows)
def test_join_is_associative(a: MessageRow, b: MessageRow, c: MessageRow) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))


@given(rows, rows)
def test_join_is_idempotent_and_absorbs_what_is_known(a: MessageRow, b: MessageRow) -> None:
    assert join(a, a) == a
    assert join(join(a, b), b) == join(a, b)


@given(rows, rows)
def test_join_never_goes_back(a: MessageRow, b: MessageRow) -> None:
    both = join(a, b)
    assert both.status >= a.status
    assert both.rank >= a.status.rank
    assert both.grant >= a.grant
    assert set(a.delivered) <= set(both.delivered)
    assert {r.digest for r in a.reservations} <= {r.digest for r in both.reservations}


def reserved(text: str, epoch: int) -> MessageRow:
    replies = (text,)
    reservation = Reservation(digest_of(replies), epoch, "a", replies)
    return MessageRow("k", Status(Rank.RESERVED, epoch), reservations=(reservation,))


def test_two_different_reservations_are_undecided() -> None:
    row = join(reserved("yes", 1), reserved("no", 2))
    assert row.state == "undecided"
    assert "different answers" in row.reason


def test_the_same_answer_reserved_twice_is_one_answer() -> None:
    row = join(reserved("yes", 1), reserved("yes", 2))
    assert row.state == "reserved"
    assert row.reservation is not None
    assert row.reservation.epoch == 2


def test_an_answer_known_to_be_unsent_is_no_conflict_until_it_is_reserved_anew() -> None:
    unsent = MessageRow("k", void=((digest_of(("no",)), 2),))
    row = join(join(reserved("yes", 3), reserved("no", 2)), unsent)
    assert row.state == "reserved"
    assert row.reservation is not None
    assert row.reservation.replies == ("yes",)
    assert join(row, reserved("no", 4)).state == "undecided"


def test_committed_wins_over_a_newer_reservation_and_names_its_own_answer() -> None:
    first = reserved("yes", 1)
    committed = join(
        first,
        MessageRow("k", Status(Rank.COMMITTED, 1), commit=Commit(1, 2, digest_of(("yes",)), "", "a")),
    )
    row = join(reserved("no", 5), committed)
    assert row.state == "committed"
    assert row.reservation is not None
    assert row.reservation.replies == ("yes",)


def test_an_answer_beats_giving_up_and_a_persons_no_beats_an_answer() -> None:
    given_up = MessageRow("k", Status(Rank.ABANDONED, 9))
    refused = MessageRow("k", Status(Rank.REJECTED, 1))
    assert join(given_up, reserved("yes", 1)).state == "reserved"
    assert join(refused, reserved("yes", 3)).state == "rejected"


def test_a_marker_without_its_message_asks_for_no_work() -> None:
    assert not MessageRow("k", Status(Rank.PROCESSING, 1)).open


topics = st.text("ab:%.", min_size=1, max_size=5).filter(lambda t: "%" not in t)


@given(topics, st.text("ab:%", max_size=5), topics, st.text("ab:%", max_size=5))
def test_dedupe_keys_of_different_messages_differ(t1: str, i1: str, t2: str, i2: str) -> None:
    assert (dedupe_key("local", t1, i1) == dedupe_key("local", t2, i2)) == ((t1, i1) == (t2, i2))


def test_public_key_is_what_the_sender_gave_on_the_local_channel_only() -> None:
    assert public_key(dedupe_key("local", "a:b", "k:1")) == "k:1"
    assert public_key(dedupe_key("telegram", "42", "7")) == "telegram:42:7"


def test_reply_ids_depend_on_key_and_part_alone() -> None:
    assert reply_id("k", 0) == reply_id("k", 0)
    assert len({reply_id("k", 0), reply_id("k", 1), reply_id("j", 0)}) == 3


placements = st.builds(
    Placement,
    st.just("t"),
    st.none() | st.sampled_from("ab"),
    small,
    small,
    st.sampled_from(["pinned", "placed"]),
    st.none() | st.just("a"),
)


@given(placements, placements, placements)
def test_placements_join_to_the_highest_ownership_epoch(a: Placement, b: Placement, c: Placement) -> None:
    assert newer_placement(a, newer_placement(b, c)) == newer_placement(newer_placement(a, b), c)
    assert newer_placement(a, b) == newer_placement(b, a)
    best = newer_placement(a, b)
    assert (best.epoch, best.n) == max((a.epoch, a.n), (b.epoch, b.n))
