"""What the host says to a machine that it does not let in. Never which part of a code was wrong."""

from __future__ import annotations

from instar_node.errors import InstarError


def wrong_code(attempts_left: int) -> InstarError:
    """403: the proof does not hold; the attempt is spent."""
    return InstarError(
        "wrong-code",
        f"the code is not right; attempts left: {attempts_left}",
        "read it again from the other machine" if attempts_left else "run `instar pair` there for a new one",
        status=403,
        extra={"reason": "wrong-code", "attempts_left": attempts_left},
    )


def declined(why: str) -> InstarError:
    """403: a person said no, or took the code back."""
    return InstarError(
        "declined",
        why,
        "if the short strings differed, somebody is between the machines; else run `instar pair` again",
        status=403,
        extra={"reason": "declined", "attempts_left": 0},
    )


def already_member(removed: bool) -> InstarError:
    """409: this identity is a member, or was."""
    if removed:
        return InstarError(
            "removed-machine",
            "this machine was removed from the mesh; its identity stays out",
            "move its machine/ folder aside for a new identity, and join again",
        )
    return InstarError(
        "already-member",
        "this machine is a member of the mesh already",
        "if it lost its registry: remove it on the awake machine, move its machine/ folder aside, join again",
    )


def joining_already() -> InstarError:
    """409: this home is changing its mesh."""
    return InstarError("joining", "this machine is joining another mesh", "wait until it has, or has not")


def exchange_over() -> InstarError:
    """410: the exchange was used, replaced by a newer code, or is unknown."""
    return InstarError(
        "exchange-over",
        "this exchange is over: each one carries a single guess",
        "start again with the code that the other machine shows now",
        status=410,
        extra={"reason": "consumed"},
    )


def too_many(retry_in_ms: int) -> InstarError:
    """429: more exchanges than people can start."""
    return InstarError(
        "too-many-exchanges",
        "too many pairing exchanges",
        "wait a few seconds and try again",
        status=429,
        extra={"retry_in_ms": retry_in_ms},
    )


def admission_failed() -> InstarError:
    """500: a defect on the host, logged there."""
    return InstarError(
        "admission-failed", "the admission failed on that machine", "its log says why", status=500
    )
