"""What the holder sends a standby next, from acknowledgements and time alone."""

from __future__ import annotations

from instar_node.contracts import LogPosition as P
from instar_node.livetail.feed import ACK_TIMEOUT_US, WINDOW_BYTES, PeerFeed


def begun() -> PeerFeed:
    feed = PeerFeed()
    feed.begin(P(1, 10), now=0)
    return feed


def test_nothing_is_sent_before_the_standby_said_where_it_stands() -> None:
    assert PeerFeed().room() == 0


def test_a_full_window_stops_sending_until_it_is_acknowledged() -> None:
    feed = begun()
    feed.pushed(P(1, 11), WINDOW_BYTES - 1, now=1)
    assert feed.room() == 1
    feed.pushed(P(1, 12), 2, now=1)
    assert feed.room() == 0
    feed.acknowledged(P(1, 11), now=2)
    assert feed.room() == WINDOW_BYTES - 2
    assert (feed.acked, feed.sent, feed.last_ack) == (P(1, 11), P(1, 12), 2)


def test_acknowledgements_are_cumulative_and_never_go_back() -> None:
    feed = begun()
    feed.pushed(P(1, 11), 1, now=1)
    feed.pushed(P(1, 12), 1, now=1)
    feed.acknowledged(P(1, 12), now=2)
    feed.acknowledged(P(1, 11), now=3)
    assert feed.acked == P(1, 12)
    assert feed.room() == WINDOW_BYTES


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    feed = begun()
    feed.acknowledged(P(1, 99), now=1)
    assert feed.acked == P(1, 10)


def test_silence_sends_again_from_the_last_acknowledgement() -> None:
    feed = begun()
    feed.pushed(P(1, 11), 5, now=100)
    assert not feed.overdue(100 + ACK_TIMEOUT_US - 1)
    assert feed.overdue(100 + ACK_TIMEOUT_US)
    assert (feed.sent, feed.room()) == (P(1, 10), WINDOW_BYTES)
    assert not feed.overdue(10 * ACK_TIMEOUT_US), "nothing is under way"


def test_progress_puts_the_timeout_off() -> None:
    feed = begun()
    feed.pushed(P(1, 11), 5, now=0)
    feed.pushed(P(1, 12), 5, now=0)
    feed.acknowledged(P(1, 11), now=ACK_TIMEOUT_US - 1)
    assert not feed.overdue(ACK_TIMEOUT_US)


def test_what_it_acknowledged_is_remembered_after_it_is_gone() -> None:
    feed = begun()
    feed.end()
    assert (feed.acked, feed.room()) == (P(1, 10), 0)
