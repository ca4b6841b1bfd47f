"""The rules of one pairing code: how it opens, is spent and ends. Pure; times are ``Clock`` microseconds."""

from __future__ import annotations

from typing import Literal

import msgspec

from instar_node.errors import InstarError
from instar_node.pairing.sas import ShortString

LIFETIME_US = 120_000_000
MAX_ATTEMPTS = 3

State = Literal["none", "open", "confirming", "joined", "expired", "locked", "consumed", "cancelled"]


class SeenJoiner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who proved the code, for people."""

    machine_id: str
    nickname: str
    fingerprint: str


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One code and what became of it.

    ``open``: guesses are taken. ``confirming``: proved, two people compare the short string. ``consumed``:
    proved, and the admission runs or failed; or burned by a restart. ``joined``: admitted. Whatever is not
    ``open`` holds no code.
    """

    state: State = "none"
    code: str | None = None
    incarnation: str = ""
    """Which run of the process minted it; another one burns it, since the clock may have begun anew."""
    expires_at: int = 0
    attempts_left: int = 0
    sas: bool = False
    short: ShortString | None = None
    joiner: SeenJoiner | None = None
    last_refusal: str | None = None


def minted(code: str, incarnation: str, now: int, sas: bool) -> Session:
    """A fresh session for a fresh code; whatever was before is void."""
    return Session(
        state="open",
        code=code,
        incarnation=incarnation,
        expires_at=now + LIFETIME_US,
        attempts_left=MAX_ATTEMPTS,
        sas=sas,
    )


def ended(session: Session, state: State, why: str | None = None) -> Session:
    """The session in a state that takes no guesses any more; the code is forgotten."""
    return msgspec.structs.replace(
        session, state=state, code=None, last_refusal=why if why is not None else session.last_refusal
    )


def lapsed(session: Session, now: int) -> Session:
    """The session as time has left it: expired once its lifetime is over."""
    if session.state in ("open", "confirming") and now >= session.expires_at:
        return ended(session, "expired")
    return session


def burned(session: Session, incarnation: str) -> Session:
    """The session as a restart leaves it: a code of another run of the process is void."""
    if session.state in ("open", "confirming") and session.incarnation != incarnation:
        return ended(session, "consumed", "the node was restarted, which burns an open code")
    return session


def spent(session: Session) -> Session:
    """One attempt less, before anything is known of the guess. Raises what ``require_open`` raises."""
    require_open(session)
    return msgspec.structs.replace(session, attempts_left=session.attempts_left - 1)


def missed(session: Session, why: str) -> Session:
    """After a wrong guess; the last one locks the code."""
    if session.attempts_left <= 0:
        return ended(session, "locked", why)
    return msgspec.structs.replace(session, last_refusal=why)


def proved(session: Session, now: int, joiner: SeenJoiner, short: ShortString, compare: bool) -> Session:
    """After the right guess: people compare (with a lifetime of its own), or the code is consumed."""
    known = msgspec.structs.replace(session, joiner=joiner, short=short)
    if compare:
        waiting = ended(known, "confirming")
        return msgspec.structs.replace(waiting, expires_at=now + LIFETIME_US)
    return ended(known, "consumed")


def require_open(session: Session) -> str:
    """The code, if a guess may be made now; else raises ``InstarError`` (404, 403 or 410)."""
    if session.state == "open" and session.attempts_left > 0 and session.code is not None:
        return session.code
    if session.state == "none":
        raise InstarError(
            "no-code", "no pairing code is open on that machine", "run `instar pair` there", status=404
        )
    if session.state in ("locked", "open"):
        raise InstarError(
            "code-locked",
            f"{MAX_ATTEMPTS} wrong guesses have locked the code",
            "run `instar pair` there for a new one",
            status=403,
            extra={"reason": "locked", "attempts_left": 0},
        )
    reason = "expired" if session.state == "expired" else "consumed"
    raise InstarError(
        f"code-{reason}",
        f"the pairing code is {'expired' if reason == 'expired' else 'no longer open'}",
        "run `instar pair` there for a new one",
        status=410,
        extra={"reason": reason},
    )
