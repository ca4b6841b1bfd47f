"""Judges a history: pure, and itself tested with histories that are broken in one way each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from tests.chaos.history import Attempt, Beat, Copy, History


class Violation(NamedTuple):
    """A promise that was not kept; ``about`` names keys, topics, machines or epochs to look for in logs."""

    rule: str
    text: str
    about: tuple[str, ...] = ()


def check(history: History) -> list[Violation]:
    """Everything that is wrong with a history, the rules in the order of ``RULES``."""
    return [violation for rule in RULES for violation in rule(history)]


def _acknowledged_everything(history: History) -> Iterator[Violation]:
    for key in history.unanswered:
        yield Violation("liveness", f"{key} was not acknowledged although all was healed", (key,))


def _repeats_are_known(history: History) -> Iterator[Violation]:
    for sent in history.sent:
        if sent.repeated and not sent.duplicate:
            text = f"{sent.key} had been acknowledged, and {sent.machine} took it as new"
            yield Violation("dedupe", text, (sent.key,))


def _answered_once(history: History) -> Iterator[Violation]:
    """Each acknowledged key has exactly one effective reply at the receiver, and no other key has any."""
    effective: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in history.attempts:
        if attempt.verdict == "accepted":
            effective[attempt.reply_to].append(attempt)
    keys = {sent.key for sent in history.sent}
    for key in sorted(keys - effective.keys()):
        yield Violation("lost", f"{key} was acknowledged and never answered", (key,))
    for key in sorted(effective.keys() - keys - set(history.unanswered)):
        yield Violation("invented", f"a reply to {key}, which nobody sent, was delivered", (key,))
    for key, replies in effective.items():
        if len(replies) > 1:
            ids = ", ".join(f"{reply.reply_id} in epoch {reply.epoch}" for reply in replies)
            yield Violation("doubled", f"{key} was answered {len(replies)} times: {ids}", (key,))


def _one_text_an_id(history: History) -> Iterator[Violation]:
    """The idempotency key names one text: a repeat under it never says something else."""
    first: dict[str, Attempt] = {}
    for attempt in history.attempts:
        known = first.setdefault(attempt.reply_id, attempt)
        if attempt.text != known.text:
            said = f"epoch {known.epoch} said {known.text!r}, epoch {attempt.epoch} {attempt.text!r}"
            yield Violation("two-answers", f"{attempt.reply_to}: {said}", (attempt.reply_to,))


def _in_order(history: History) -> Iterator[Violation]:
    """Replies of a topic become effective in the order in which its messages were sent."""
    number = {sent.key: sent.number for sent in history.sent}
    by_topic: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in history.attempts:
        if attempt.verdict == "accepted" and attempt.reply_to in number:
            by_topic[attempt.topic].append(attempt)
    for topic, replies in by_topic.items():
        for before, after in pairwise(replies):
            if number[before.reply_to] > number[after.reply_to]:
                text = f"topic {topic}: {before.reply_to} was answered before {after.reply_to}"
                yield Violation("order", text, (before.reply_to, after.reply_to))


def _fenced(history: History) -> Iterator[Violation]:
    """Epochs only rise: in what the receiver took, and in what reached it at all."""
    taken = [attempt for attempt in history.attempts if attempt.verdict == "accepted"]
    arrived = sorted(history.attempts, key=lambda attempt: attempt.arrived)
    for rule, attempts in (("stale-effect", taken), ("stale-attempt", arrived)):
        highest = 0
        for attempt in attempts:
            if attempt.epoch < highest:
                text = f"{attempt.machine} sent {attempt.reply_to} in epoch {attempt.epoch}, after {highest}"
                yield Violation(rule, text, (attempt.reply_to,))
            highest = max(highest, attempt.epoch)


def _one_holder_an_epoch(history: History) -> Iterator[Violation]:
    claims: dict[int, dict[str, str]] = defaultdict(dict)
    for epoch, holders in history.register.items():
        for holder in holders:
            claims[epoch][holder] = "the register"
    for copy in history.copies:
        for epoch, holder in copy.holders.items():
            claims[epoch].setdefault(holder, f"the history of {copy.machine}")
    for attempt in history.attempts:
        claims[attempt.epoch].setdefault(attempt.machine, "the receiver")
    for epoch, claimants in sorted(claims.items()):
        if len(claimants) > 1:
            who = ", ".join(f"{holder} ({source})" for holder, source in claimants.items())
            yield Violation("two-holders", f"epoch {epoch} is claimed by {who}")


def runs_apart(history: History) -> Iterator[Violation]:
    """No two agents work on one topic at the same time, wherever they run."""
    runs: dict[str, list[Beat]] = defaultdict(list)
    for beat in history.beats:
        runs[beat.run].append(beat)
    by_topic: dict[str, list[tuple[float, float, Beat]]] = defaultdict(list)
    for beats in runs.values():
        times = [beat.at for beat in beats]
        by_topic[beats[0].topic].append((min(times), max(times), beats[0]))
    for topic, spans in by_topic.items():
        spans.sort(key=lambda span: span[:2])
        for (_, ended, one), (began, _, other) in pairwise(spans):
            if began < ended:
                text = (
                    f"topic {topic}: {one.key} on {one.machine} was at work {1_000 * (ended - began):.0f} ms "
                    f"longer than {other.key} on {other.machine} waited"
                )
                yield Violation("overlapping-runs", text, (one.key, other.key))


def _copies_agree(history: History) -> Iterator[Violation]:
    """After healing all machines hold the same ledger and show the same conversation."""
    for one, other in pairwise(history.copies):
        if one.log != other.log:
            yield Violation("logs-differ", f"{_first_difference(one, other)}")
        for key in sorted(one.rows.keys() | other.rows.keys()):
            if one.rows.get(key) != other.rows.get(key):
                text = f"{key}: {one.machine} has {one.rows.get(key)}, {other.machine} {other.rows.get(key)}"
                yield Violation("rows-differ", text, (key,))
        if one.lines != other.lines:
            odd = set(one.lines) ^ set(other.lines)
            text = f"{one.machine} and {other.machine} show other conversations: {sorted(map(str, odd))[:4]}"
            yield Violation("conversations-differ", text, tuple(sorted({line.key for line in odd})))


def _first_difference(one: Copy, other: Copy) -> str:
    pairs = zip(one.log, other.log, strict=False)
    common = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one.log), len(other.log)))
    return (
        f"{one.machine} has {len(one.log)} entries and {other.machine} {len(other.log)}; after {common} "
        f"equal ones {one.log[common : common + 2]} against {other.log[common : common + 2]}"
    )


def _conversation_is_what_was_delivered(history: History) -> Iterator[Violation]:
    """Each message once, each answer once, in order, and with the words that the receiver took."""
    delivered = {a.reply_to: a.text for a in history.attempts if a.verdict == "accepted"}
    number = {sent.key: sent.number for sent in history.sent}
    for copy in history.copies[:1]:  # the others are compared with it
        for role in ("user", "agent"):
            shown = [line for line in copy.lines if line.role == role]
            keys = [line.key for line in shown]
            for key in sorted(number.keys() - set(keys)):
                yield Violation("conversation", f"no {role} line of {key} is shown", (key,))
            for key, times in Counter(keys).items():
                if times > 1:
                    yield Violation("conversation", f"{key} has {times} {role} lines", (key,))
        for line in copy.lines:
            if line.role == "agent" and delivered.get(line.key, line.text) != line.text:
                text = f"{line.key}: shown is {line.text!r}, delivered was {delivered[line.key]!r}"
                yield Violation("conversation", text, (line.key,))


RULES: tuple[Callable[[History], Iterator[Violation]], ...] = (
    _acknowledged_everything,
    _repeats_are_known,
    _answered_once,
    _one_text_an_id,
    _in_order,
    _fenced,
    _one_holder_an_epoch,
    runs_apart,
    _copies_agree,
    _conversation_is_what_was_delivered,
)
