"""The pairing session of this home, on disk before anybody is answered."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from instar_node.clock import Clock
from instar_node.errors import InstarError
from instar_node.pairing.sas import ShortString
from instar_node.pairing.session import (
    SeenJoiner,
    Session,
    State,
    burned,
    ended,
    lapsed,
    minted,
    missed,
    proved,
    spent,
)
from instar_node.storage.atomic import read_json, write_atomic

log = logging.getLogger("instar.pairing")

FILE_NAME = "pairing-session.json"


class PairingSessionStore:
    """Keeps ``machine/pairing-session.json`` (0600). Every method leaves the file as the memory is.

    The file holds a usable code only while the code is open: one found at the start is burned (a restart,
    and the sleep-counting clock may have begun anew), one that ended is erased.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._path = folder / FILE_NAME
        self._clock = clock
        self._incarnation = clock.token_hex(8)
        self._session = Session()
        self._keep(burned(self._read(), self._incarnation))

    def current(self) -> Session:
        """The session as it is now; one that ran out is ended on disk too."""
        self._keep(lapsed(self._session, self._clock.now()))
        return self._session

    def remaining_us(self) -> int:
        """Microseconds until the code, or the comparison, runs out; 0 when neither is under way."""
        session = self.current()
        waiting = session.state in ("open", "confirming")
        return session.expires_at - self._clock.now() if waiting else 0

    def mint(self, code: str, sas: bool) -> Session:
        """Open a new code; an older one is void."""
        self._keep(minted(code, self._incarnation, self._clock.now(), sas))
        return self._session

    def spend(self) -> Session:
        """Spend an attempt, durably. Raises ``InstarError`` (404, 403, 410) when no guess may be made."""
        self._keep(spent(self.current()))
        return self._session

    def miss(self, why: str) -> Session:
        """Note a wrong guess whose attempt was spent."""
        self._keep(missed(self._session, why))
        return self._session

    def prove(self, joiner: SeenJoiner, short: ShortString, compare: bool) -> Session:
        """Note the right guess: the code is gone, durably, before anybody is admitted by it."""
        self._keep(proved(self._session, self._clock.now(), joiner, short, compare))
        return self._session

    def end(self, state: State, why: str | None = None) -> Session:
        """End the session in this state."""
        self._keep(ended(self._session, state, why))
        return self._session

    def _keep(self, session: Session) -> None:
        if session != self._session:
            write_atomic(self._path, msgspec.json.encode(session) + b"\n")
            self._session = session

    def _read(self) -> Session:
        try:
            found = read_json(self._path, Session)
        except InstarError as error:
            if error.code == "file-unreadable":
                raise
            if error.code == "file-damaged":  # nothing in it is worth more than a new code
                log.warning("%s; it is put aside for an empty one", error.message)
                write_atomic(self._path, msgspec.json.encode(Session()) + b"\n")
            return Session()
        return found
