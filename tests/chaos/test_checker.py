"""The checker finds what it is there to find: one history for each way in which a promise can be broken."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.chaos.checker import check
from tests.chaos.history import Attempt, Beat, Copy, History, Line, Sent, Verdict


def attempt(
    key: str, epoch: int, verdict: Verdict = "accepted", text: str = "", machine: str = ""
) -> Attempt:
    holder = machine or {1: "desk", 2: "mini"}[epoch]
    return Attempt(0.0, 0.0, f"r-{key}", key, "t", text or f"re {key}", epoch, holder, verdict)


def sound() -> History:
    """Two messages, a change of holder between them, the second answer tried twice."""
    lines = [
        Line("t", seq, role, key, text)
        for seq, (role, key, text) in enumerate(
            [("user", "a", "a?"), ("agent", "a", "re a"), ("user", "b", "b?"), ("agent", "b", "re b")], 1
        )
    ]
    copies = [
        Copy(
            name,
            ["1.1 open", "2.1 open"],
            {"a": "committed", "b": "committed"},
            list(lines),
            {1: "desk", 2: "mini"},
        )
        for name in ("desk", "mini")
    ]
    return History(
        seed=0,
        sent=[Sent(0.0, key, "t", number, "desk", False) for number, key in enumerate("ab")],
        attempts=[attempt("a", 1), attempt("b", 2), attempt("b", 2, "duplicate")],
        beats=[
            Beat(at, key, "t", f"run {key}", "desk", 1)
            for at, key in ((1, "a"), (2, "a"), (3, "b"), (4, "b"))
        ],
        copies=copies,
        register={1: ["desk"], 2: ["mini"]},
    )


def test_a_sound_history_has_no_violation() -> None:
    assert check(sound()) == []


def _lost(history: History) -> None:
    del history.attempts[0]


def _doubled_under_another_id(history: History) -> None:
    history.attempts.append(msgspec.structs.replace(attempt("a", 2), reply_id="r-other"))


def _nobody_asked(history: History) -> None:
    history.attempts.append(attempt("z", 2))


def _never_acknowledged(history: History) -> None:
    history.unanswered.append("c")


def _taken_as_new(history: History) -> None:
    history.sent.append(Sent(1.0, "a", "t", 0, "mini", duplicate=False, repeated=True))


def _second_text(history: History) -> None:
    history.attempts.append(attempt("b", 2, "duplicate", text="something else"))


def _swapped(history: History) -> None:
    history.attempts[:2] = [attempt("b", 2), attempt("a", 2)]


def _late(history: History) -> None:
    history.attempts.append(attempt("a", 1, "stale"))


def _fooled(history: History) -> None:
    history.attempts[:2] = [attempt("a", 2), attempt("b", 1)]


def _two_at_the_receiver(history: History) -> None:
    history.attempts.append(attempt("b", 2, "duplicate", machine="desk"))


def _two_in_the_register(history: History) -> None:
    history.register[2].append("desk")


def _other_memory(history: History) -> None:
    history.copies[1].holders[2] = "desk"


def _side_by_side(history: History) -> None:
    history.beats.append(Beat(3.5, "a", "t", "run a", "desk", 1))


def _shorter_log(history: History) -> None:
    history.copies[1].log.pop()


def _other_row(history: History) -> None:
    history.copies[1].rows["b"] = "reserved"


def _other_line(history: History) -> None:
    history.copies[1].lines[:] = history.copies[1].lines[:3]


def _not_shown(history: History) -> None:
    for copy in history.copies:
        copy.lines[:] = [line for line in copy.lines if line.key != "a"]


def _shown_twice(history: History) -> None:
    for copy in history.copies:
        copy.lines[:] = [*copy.lines, Line("t", 5, "agent", "b", "re b")]


def _shown_is_not_delivered(history: History) -> None:
    for copy in history.copies:
        copy.lines[:] = [*copy.lines[:3], Line("t", 4, "agent", "b", "something else")]


@pytest.mark.parametrize(
    ("break_it", "rule"),
    [
        (_lost, "lost"),
        (_doubled_under_another_id, "doubled"),
        (_nobody_asked, "invented"),
        (_never_acknowledged, "liveness"),
        (_taken_as_new, "dedupe"),
        (_second_text, "two-answers"),
        (_swapped, "order"),
        (_late, "stale-attempt"),
        (_fooled, "stale-effect"),
        (_two_at_the_receiver, "two-holders"),
        (_two_in_the_register, "two-holders"),
        (_other_memory, "two-holders"),
        (_side_by_side, "overlapping-runs"),
        (_shorter_log, "logs-differ"),
        (_other_row, "rows-differ"),
        (_other_line, "conversations-differ"),
        (_not_shown, "conversation"),
        (_shown_twice, "conversation"),
        (_shown_is_not_delivered, "conversation"),
    ],
)
def test_each_broken_promise_is_found(break_it: Callable[[History], None], rule: str) -> None:
    history = sound()
    break_it(history)
    assert rule in {violation.rule for violation in check(history)}
