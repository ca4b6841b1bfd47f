"""What the holder may conclude about a run elsewhere, from what it sent and heard."""

from __future__ import annotations

from instar_node.pool.remote_grant import KILL_GRACE_US, RemoteGrant, Step

TTL = 1_000_000
BOUND = 1_020_203 + KILL_GRACE_US  # ttl · 1.01 / 0.99, and the time to kill


def accepted_at(now: int) -> RemoteGrant:
    grant = RemoteGrant(TTL, 0.01)
    grant.extending(now)
    grant.accepted(now, 0)
    return grant


def test_first_the_order_then_keep_alives() -> None:
    grant = RemoteGrant(TTL, 0.01)
    assert grant.step(0, connected=True) is Step.ORDER
    grant.extending(0)
    assert grant.step(1, connected=True) is Step.ORDER, "it was not accepted"
    grant.accepted(1, 0)
    assert grant.step(2, connected=True) is Step.KEEP
    assert grant.wait_us(2) == TTL // 3


def test_an_order_that_was_never_sent_leaves_nothing_to_wait_for() -> None:
    assert RemoteGrant(TTL, 0.01).step(0, connected=False) is Step.LOST


def test_the_run_of_a_machine_that_went_away_is_lost_only_after_the_whole_bound() -> None:
    grant = accepted_at(0)
    grant.extending(500)
    assert grant.step(500 + BOUND - 1, connected=False) is Step.WAIT
    assert grant.step(500 + BOUND, connected=False) is Step.LOST


def test_a_machine_that_stopped_answering_gets_no_more_keep_alives() -> None:
    grant = accepted_at(0)
    for now in range(0, TTL + 1, TTL // 4):
        assert grant.step(now, connected=True) is Step.KEEP
        grant.extending(now)
    assert grant.step(TTL + 1, connected=True) is Step.WAIT
    assert grant.step(TTL + BOUND, connected=True) is Step.LOST


def test_an_answer_keeps_it_going() -> None:
    grant = accepted_at(0)
    grant.alive(TTL, 0)
    grant.extending(TTL)
    assert grant.step(2 * TTL, connected=True) is Step.KEEP


def test_a_machine_that_forgot_the_run_is_ordered_again() -> None:
    grant = accepted_at(0)
    grant.forgotten()
    assert grant.step(10, connected=True) is Step.ORDER
    assert grant.step(10, connected=False) is Step.WAIT


def test_a_machine_that_never_accepts_is_given_up() -> None:
    grant = RemoteGrant(TTL, 0.01)
    grant.extending(0)
    grant.extending(TTL)
    assert grant.step(TTL + 1, connected=True) is Step.WAIT
    assert grant.step(TTL + BOUND, connected=True) is Step.LOST


def test_the_wait_never_passes_the_bound() -> None:
    grant = accepted_at(0)
    assert grant.wait_us(BOUND - 2_000) == 2_000
