"""``TransferByNickname``: what a wish to move a topic leads to, from the facts alone. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from instar_node.clock import MICROS_PER_SECOND
from instar_node.contracts import Placement
from instar_node.errors import InstarError

RATE_LIMIT_US = 10 * MICROS_PER_SECOND
"""Least time between two moves of one topic; taking the last one back is exempt, once."""


class TransferFacts(msgspec.Struct, frozen=True):
    """All that the decision rests on, read at one instant. Times in microseconds.

    ``target`` is ``None`` when the name is no machine's that runs topics. ``owner`` is where the topic runs
    now, ``epoch`` that of the lease. ``running`` are the keys of messages its agent works on, ``mid_reply``
    whether an answer is going out right now. ``barred`` says why the target gets nothing new (a shut gate,
    another version), if it does not.
    """

    topic: str
    name: str
    target: str | None
    target_nickname: str
    target_online: bool
    known: tuple[str, ...]
    owner: str | None
    epoch: int
    placement: Placement | None
    running: tuple[str, ...]
    mid_reply: bool
    last_move: int | None
    undo: bool
    now: int
    attempt: int = 0
    """How many confirmed moves of this topic were begun: a token is good for one."""
    barred: InstarError | None = None


class Go(msgspec.Struct, frozen=True, tag=True):
    """Move it; ``queued`` when the target is away: it will run there when it is back. ``confirmed`` when a
    person agreed to something, with a token that is spent then."""

    target: str
    queued: bool
    confirmed: bool = False


class Noop(msgspec.Struct, frozen=True, tag=True):
    """It runs there already; ``pin`` when it is not pinned there yet and the wish pins it."""

    target: str
    pin: bool


class TransferByNickname:
    """Decides in a fixed order, so that a person is told the first thing that is wrong."""

    def plan(self, facts: TransferFacts, confirm: str | None) -> Go | Noop:
        """What to do.

        Raises ``InstarError``: ``unknown-machine`` (404, with ``known``), what bars the target,
        ``rate-limited`` (429, with ``retry_in_ms``) or ``needs-confirmation`` (409, with ``prompt``,
        ``conditions`` and the ``confirm`` token). A token is only good for exactly the facts it comes from.
        """
        target = facts.target
        if target is None:
            raise InstarError(
                "unknown-machine",
                f"no machine that runs topics is called {facts.name}",
                f"known: {', '.join(facts.known)}",
                status=404,
                extra={"known": list(facts.known)},
            )
        pinned_to = facts.placement.pinned_to if facts.placement is not None else None
        if pinned_to == target or (pinned_to is None and facts.owner == target):
            return Noop(target, pin=pinned_to is None and not facts.undo)
        if facts.barred is not None:
            raise facts.barred
        self._limit(facts)
        conditions = _conditions(facts)
        if conditions and confirm != challenge(facts):
            raise _needs_confirmation(facts, conditions, stale=confirm is not None)
        return Go(target, queued=not facts.target_online, confirmed=bool(conditions))

    def _limit(self, facts: TransferFacts) -> None:
        if facts.undo or facts.last_move is None:
            return
        wait = facts.last_move + RATE_LIMIT_US - facts.now
        if wait > 0:
            seconds = wait / MICROS_PER_SECOND
            raise InstarError(
                "rate-limited",
                f"topic {facts.topic} has just moved; wait {seconds:.0f} s",
                "undo takes the last move back at once",
                status=429,
                extra={"retry_in_ms": -(-wait // 1_000)},
            )


def challenge(facts: TransferFacts) -> str:
    """The confirmation token: a digest of what the person was shown and what the move would change."""
    placement = facts.placement
    exact = (
        facts.topic,
        facts.target,
        facts.target_online,
        facts.owner,
        facts.epoch,
        None if placement is None else (placement.epoch, placement.n),
        sorted(facts.running),
        facts.mid_reply,
        facts.undo,
        facts.attempt,
    )
    return hashlib.sha256(msgspec.json.encode(exact)).hexdigest()[:32]


def _conditions(facts: TransferFacts) -> dict[str, str]:
    """What a person should agree to first: name and sentence, in order."""
    found = {}
    if facts.running:
        found["running-work"] = "the agent is working on a message, which will be stopped and run anew there"
    if not facts.target_online:
        found["offline"] = f"{facts.target_nickname} is offline: messages will wait until it is back"
    if facts.mid_reply:
        found["mid-reply"] = "an answer is just being sent"
    return found


def _needs_confirmation(facts: TransferFacts, conditions: dict[str, str], *, stale: bool) -> InstarError:
    changed = "The situation has changed. " if stale else ""
    reasons = "; ".join(conditions.values())
    prompt = f"{changed}Move topic {facts.topic} to {facts.target_nickname}? Mind that {reasons}."
    return InstarError(
        "needs-confirmation",
        prompt,
        "repeat with the confirm token (--yes)",
        extra={"prompt": prompt, "conditions": list(conditions), "confirm": challenge(facts)},
    )
