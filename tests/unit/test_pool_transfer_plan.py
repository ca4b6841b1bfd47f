"""What a wish to move a topic leads to, from the facts alone, in the order a person is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from instar_node.contracts import Placement
from instar_node.errors import InstarError
from instar_node.pool.transfer_plan import RATE_LIMIT_US, Go, Noop, TransferByNickname, TransferFacts

FACTS = TransferFacts(
    topic="42",
    name="Mini",
    target="m-mini",
    target_nickname="mini",
    target_online=True,
    known=("desk", "mini"),
    owner="m-desk",
    epoch=1,
    placement=Placement("42", "m-desk", 1, 1, "placed"),
    running=(),
    mid_reply=False,
    last_move=None,
    undo=False,
    now=100_000_000,
)
EVERYTHING_WRONG: dict[str, Any] = {
    "running": ("k1",),
    "mid_reply": True,
    "target_online": False,
    "last_move": 100_000_000,
}


def plan(confirm: str | None = None, **changes: Any) -> Go | Noop:
    return TransferByNickname().plan(msgspec.structs.replace(FACTS, **changes), confirm)


def refused(confirm: str | None = None, **changes: Any) -> InstarError:
    with pytest.raises(InstarError) as caught:
        plan(confirm, **changes)
    return caught.value


def test_a_plain_move_goes() -> None:
    assert plan() == Go("m-mini", queued=False)


def test_an_unknown_name_comes_first_and_lists_the_valid_ones() -> None:
    error = refused(**EVERYTHING_WRONG, target=None)
    assert (error.code, error.status, error.extra) == ("unknown-machine", 404, {"known": ["desk", "mini"]})


def test_where_it_is_already_nothing_moves_whatever_else_is_wrong() -> None:
    assert plan(**EVERYTHING_WRONG, owner="m-mini") == Noop("m-mini", pin=True)
    pinned = Placement("42", None, 1, 2, "pinned", "m-mini")
    assert plan(**EVERYTHING_WRONG, owner=None, placement=pinned) == Noop("m-mini", pin=False)


def test_the_rate_limit_comes_before_any_question() -> None:
    error = refused(**EVERYTHING_WRONG)
    assert (error.code, error.status) == ("rate-limited", 429)
    assert error.extra == {"retry_in_ms": 10_000}


def test_the_rate_limit_ends() -> None:
    assert refused(last_move=FACTS.now - RATE_LIMIT_US + 1).code == "rate-limited"
    assert plan(last_move=FACTS.now - RATE_LIMIT_US) == Go("m-mini", queued=False)


def test_taking_back_is_exempt_from_the_rate_limit() -> None:
    assert plan(last_move=FACTS.now, undo=True) == Go("m-mini", queued=False)


def test_everything_to_agree_to_is_asked_at_once() -> None:
    error = refused(running=("k1",), mid_reply=True, target_online=False)
    assert (error.code, error.status) == ("needs-confirmation", 409)
    assert error.extra["conditions"] == ["running-work", "offline", "mid-reply"]
    for words in ("Move topic 42 to mini?", "stopped", "mini is offline", "being sent"):
        assert words in error.extra["prompt"]


@pytest.mark.parametrize(
    ("changes", "condition"),
    [
        ({"running": ("k1",)}, "running-work"),
        ({"target_online": False}, "offline"),
        ({"mid_reply": True}, "mid-reply"),
    ],
)
def test_each_condition_asks_by_itself_and_its_token_lets_it_pass(
    changes: dict[str, Any], condition: str
) -> None:
    error = refused(**changes)
    assert error.extra["conditions"] == [condition]
    assert plan(error.extra["confirm"], **changes) == Go(
        "m-mini", queued=condition == "offline", confirmed=True
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"running": ("k1", "k2")},
        {"running": ("k2",)},
        {"mid_reply": True},
        {"target_online": False},
        {"owner": "m-laptop"},
        {"placement": Placement("42", "m-desk", 1, 2, "placed")},
        {"target": "m-laptop"},
        {"topic": "43"},
        {"epoch": 2},
    ],
)
def test_a_token_is_void_when_the_facts_have_changed(changed: dict[str, Any]) -> None:
    token = refused(running=("k1",)).extra["confirm"]
    error = refused(token, **{"running": ("k1",), **changed})
    assert error.extra["confirm"] != token
    assert error.extra["prompt"].startswith("The situation has changed.")


def test_a_token_is_not_needed_where_nothing_is_to_be_agreed_to() -> None:
    assert plan("whatever") == Go("m-mini", queued=False)
