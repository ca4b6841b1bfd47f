"""Whatever happens to a pairing code in whatever order, on disk too: three guesses, two minutes, one use."""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from identity_support import ManualClock

from instar_node.errors import InstarError
from instar_node.pairing.sas import short_string
from instar_node.pairing.session import LIFETIME_US, MAX_ATTEMPTS, SeenJoiner
from instar_node.pairing.session_store import FILE_NAME, PairingSessionStore

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Thousands of synced writes whose durability is not the point here."""
SHORT = short_string(bytes(range(32)))
JOINER = SeenJoiner("m_" + "1" * 32, "lap", "able-baker-charlie-dog-easy")


class Pairing(RuleBasedStateMachine):
    """The store, and beside it what must be true of the newest code."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.clock = ManualClock()
        self.store = PairingSessionStore(self.folder, self.clock)
        self.codes = 0
        self.minted_at = 0
        self.guesses = 0
        self.right = 0
        self.over = True
        """Whether the newest code must take no guess any more."""

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def code(self) -> str:
        return f"ABLE-BAKER-{self.codes:04d}"

    @property
    def usable(self) -> bool:
        young = self.clock.now() < self.minted_at + LIFETIME_US
        return not self.over and young and self.guesses < MAX_ATTEMPTS

    def begin_guess(self) -> bool:
        """Spend an attempt; whether there was one to spend, which must be as the model says."""
        usable, refused = self.usable, 0
        try:
            self.store.spend()
        except InstarError as error:
            refused = error.status
        assert usable == (refused == 0)
        assert refused in (0, 403, 404, 410)
        self.guesses += usable
        return usable

    @rule(sas=st.booleans())
    def mint(self, sas: bool) -> None:
        self.codes += 1
        self.store.mint(self.code, sas)
        self.minted_at, self.guesses, self.right, self.over = self.clock.now(), 0, 0, False

    @rule()
    def guess_wrong(self) -> None:
        if self.begin_guess():
            self.store.miss("wrong guess")

    @rule(compare=st.booleans())
    def guess_right(self, compare: bool) -> None:
        if self.begin_guess():
            self.store.prove(JOINER, SHORT, compare)
            self.right += 1
            self.over = True

    @rule()
    def crash_after_the_attempt_was_spent(self) -> None:
        if self.begin_guess():
            self.restart()

    @rule()
    def restart(self) -> None:
        self.store = PairingSessionStore(self.folder, self.clock)
        self.over = True

    @rule(damage=st.binary(max_size=40))
    def restart_with_a_damaged_file(self, damage: bytes) -> None:
        (self.folder / FILE_NAME).write_bytes(damage)
        self.restart()

    @precondition(lambda self: self.codes > 0)
    @rule()
    def cancel(self) -> None:
        if self.store.current().state in ("open", "confirming"):
            self.store.end("cancelled", "by hand")
            self.over = True

    @rule(seconds=st.sampled_from([1, 30, 60, 119, 121]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def a_code_is_open_exactly_while_it_is_usable(self) -> None:
        session = self.store.current()
        assert (session.state == "open" and session.attempts_left > 0) == self.usable
        if self.usable:
            assert session.attempts_left == MAX_ATTEMPTS - self.guesses

    @invariant()
    def a_code_is_used_at_most_once_and_guessed_at_most_three_times(self) -> None:
        assert self.right <= 1
        assert self.guesses <= MAX_ATTEMPTS

    @invariant()
    def the_file_is_private_and_holds_the_code_only_while_a_reader_could_use_it_anyway(self) -> None:
        self.store.current()
        path = self.folder / FILE_NAME
        if path.exists():
            assert self.usable or self.code.encode() not in path.read_bytes()
            if self.codes:
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or not self.store.current().code


TestPairing = Pairing.TestCase
TestPairing.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
