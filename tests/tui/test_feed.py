"""The feed of the overview: of steps only the newest, in the words of the screens."""

from __future__ import annotations

from typing import Any

from instar_node.events import Event
from instar_tui.widgets.feed import condensed, event_words


def event(n: int, kind: str, text: str, **data: Any) -> Event:
    return Event(n, "2026-11-23T16:58:00.000Z", kind, text, data)


def message(n: int, key: str, state: str) -> Event:
    return event(n, "message", f"work: {key} {state}", topic="work", key=key, state=state)


def transfer(n: int, step: str) -> Event:
    return event(n, "transfer", f"topic work → mini: {step}", topic="work", to="mini", step=step)


def numbers(events: list[Event]) -> list[int]:
    return [e.n for e in condensed(reversed(events))]


def test_a_message_is_one_line_with_its_newest_state() -> None:
    states = ("received", "processing", "reserved", "committed")
    first = [message(n, "a", state) for n, state in enumerate(states)]
    assert numbers([*first, message(9, "b", "received")]) == [9, 3]


def test_a_handoff_is_one_line_and_the_next_one_another() -> None:
    steps = [event(n, "handoff", f"step {n}", session=session) for n, session in enumerate("aabb")]
    assert numbers(steps) == [3, 1]


def test_two_moves_of_one_topic_to_one_machine_are_two_lines() -> None:
    back = event(4, "transfer", "topic work → desk: moved", topic="work", to="desk", step="moved")
    first, second = [[transfer(n, "drained"), transfer(n + 1, "moved")] for n in (2, 5)]
    assert numbers([*first, back, *second]) == [6, 4, 3]


def test_the_same_words_are_not_said_twice_in_a_row() -> None:
    again = [event(n, "machines", "the list of machines changed") for n in range(3)]
    assert numbers([*again, event(3, "lease", "desk is awake"), again[0]]) == [0, 3, 2]


def test_what_stands_alone_is_kept() -> None:
    assert numbers([event(n, "pair", f"guess {n}") for n in range(3)]) == [2, 1, 0]


def test_states_and_steps_are_told_in_words() -> None:
    assert event_words(message(1, "local:7", "committed")) == "work: answered"
    assert event_words(transfer(1, "tail_synced")) == "topic work → mini: tail synced"
    assert event_words(event(1, "lease", "desk_2 is awake")) == "desk_2 is awake"


def test_a_drill_is_one_line_and_the_next_one_another() -> None:
    def step(n: int, component: str) -> Event:
        return event(n, "drill", f"drill with mini: {component} works", peer="m", component=component)

    def end(n: int, word: str) -> Event:
        return event(n, "drill", f"drill with mini {word}", peer="m", passed=word == "passed", over=True)

    assert numbers([step(1, "tunnel"), step(2, "lease")]) == [2], "while it runs, the newest step"
    first = [step(1, "tunnel"), end(2, "failed")]
    assert numbers([*first, step(3, "tunnel"), step(4, "lease"), end(5, "passed")]) == [5, 2]


def test_an_alert_that_is_over_takes_the_line_of_the_alert() -> None:
    assert numbers([event(1, "alert", "the hub is gone"), event(2, "alert", "over: the hub is gone")]) == [2]
