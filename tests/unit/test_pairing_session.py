"""One code: 2 minutes, 3 attempts in all, single use, spent on disk first, burned by a restart."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from identity_support import ManualClock

from instar_node.errors import InstarError
from instar_node.pairing.sas import short_string
from instar_node.pairing.session import LIFETIME_US, MAX_ATTEMPTS, SeenJoiner, Session
from instar_node.pairing.session_store import FILE_NAME, PairingSessionStore

CODE = "RIVER-STONE-4071"
SEEN = SeenJoiner("m_" + "a" * 32, "lap", "five words of the list")
SHORT = short_string(bytes(32))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def on_disk(folder: Path) -> Session:
    return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=Session)


def test_the_file_is_private_and_shows_the_attempt_before_anything_is_known_of_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    store = PairingSessionStore(tmp_path, clock)
    store.mint(CODE, sas=False)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    store.spend()
    assert on_disk(tmp_path).attempts_left == 2


def test_an_attempt_that_cannot_be_written_down_is_not_made(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PairingSessionStore(tmp_path, clock)
    store.mint(CODE, sas=False)

    def full(*_: object) -> None:
        raise InstarError("disk-full", "full", status=507)

    monkeypatch.setattr("instar_node.pairing.session_store.write_atomic", full)
    with pytest.raises(InstarError) as refusal:
        store.spend()
    assert refusal.value.code == "disk-full"


def test_it_expires_on_the_clock_and_is_erased(tmp_path: Path, clock: ManualClock) -> None:
    store = PairingSessionStore(tmp_path, clock)
    store.mint(CODE, sas=False)
    clock.micros += LIFETIME_US - 1
    assert store.current().state == "open"
    clock.micros += 1
    assert store.remaining_us() == 0
    assert on_disk(tmp_path).state == "expired"
    assert "STONE" not in (tmp_path / FILE_NAME).read_text()
    with pytest.raises(InstarError) as refusal:
        store.spend()
    assert (refusal.value.status, refusal.value.extra["reason"]) == (410, "expired")


def test_a_restart_burns_an_open_code(tmp_path: Path, clock: ManualClock) -> None:
    PairingSessionStore(tmp_path, clock).mint(CODE, sas=False)
    store = PairingSessionStore(tmp_path, clock)
    assert store.current().state == "consumed"
    assert "restart" in (store.current().last_refusal or "")
    assert "STONE" not in (tmp_path / FILE_NAME).read_text()
    with pytest.raises(InstarError) as refusal:
        store.spend()
    assert refusal.value.status == 410


def test_a_restart_keeps_how_the_last_one_ended(tmp_path: Path, clock: ManualClock) -> None:
    first = PairingSessionStore(tmp_path, clock)
    first.mint(CODE, sas=False)
    first.end("joined")
    assert PairingSessionStore(tmp_path, clock).current().state == "joined"


def test_a_new_code_voids_the_old_one_and_has_all_attempts(tmp_path: Path, clock: ManualClock) -> None:
    store = PairingSessionStore(tmp_path, clock)
    store.mint(CODE, sas=False)
    store.spend()
    store.mint("RIVER-STONE-0000", sas=False)
    assert (store.current().code, store.current().attempts_left) == ("RIVER-STONE-0000", MAX_ATTEMPTS)


def test_the_comparison_has_a_lifetime_of_its_own_and_no_code(tmp_path: Path, clock: ManualClock) -> None:
    store = PairingSessionStore(tmp_path, clock)
    store.mint(CODE, sas=True)
    clock.micros += LIFETIME_US - 1
    store.spend()
    store.prove(SEEN, SHORT, compare=True)
    clock.micros += LIFETIME_US - 1
    assert (store.current().state, store.current().code) == ("confirming", None)
    clock.micros += 1
    assert store.current().state == "expired"


@pytest.mark.parametrize("content", [b"", b"{", b'{"state": "wide-open"}', b'{"attempts_left": 99, "x": 1}'])
def test_a_damaged_file_opens_nothing_and_stops_nothing(
    tmp_path: Path, clock: ManualClock, content: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    store = PairingSessionStore(tmp_path, clock)
    with pytest.raises(InstarError) as refusal:
        store.spend()
    assert refusal.value.status == 404
    assert on_disk(tmp_path) == Session()


class Sessions(RuleBasedStateMachine):
    """Any order of minting, guessing, time, restarts and ends keeps the promises of a code."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.store = PairingSessionStore(Path(self.folder.name), self.clock)
        self.minted = 0
        self.guesses = 0
        self.minted_at = 0
        self.void = True

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(sas=st.booleans())
    def mint(self, sas: bool) -> None:
        self.minted += 1
        self.guesses, self.void, self.minted_at = 0, False, self.clock.micros
        self.store.mint(f"RIVER-STONE-{self.minted % 10_000:04d}", sas)

    @rule(right=st.booleans(), compare=st.booleans())
    def guess(self, right: bool, compare: bool) -> None:
        alive = self.clock.micros - self.minted_at < LIFETIME_US
        try:
            self.store.spend()
        except InstarError:
            assert self.void or not alive or self.guesses >= MAX_ATTEMPTS
            return
        assert not self.void
        assert alive
        self.guesses += 1
        assert self.guesses <= MAX_ATTEMPTS
        if right:
            self.store.prove(SEEN, SHORT, compare)
            self.void = True
        else:
            self.store.miss("wrong guess")

    @rule(seconds=st.sampled_from([1, 59, 119, 120, 3_600]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        self.store = PairingSessionStore(Path(self.folder.name), self.clock)
        self.void = True

    @rule()
    def reboot(self) -> None:
        """The clock begins anew, which must not give an old code another life."""
        self.clock.micros = 1_000
        self.store = PairingSessionStore(Path(self.folder.name), self.clock)
        self.void = True

    @precondition(lambda self: self.minted > 0)
    @rule(state=st.sampled_from(["joined", "consumed", "cancelled"]))
    def end(self, state: str) -> None:
        self.store.end(state)  # type: ignore[arg-type]
        self.void = True

    @invariant()
    def a_code_is_kept_only_while_it_can_be_used(self) -> None:
        session = self.store.current()
        assert on_disk(Path(self.folder.name)) == session if session != Session() else True
        usable = session.state == "open"
        assert (session.code is not None) == usable
        assert 0 <= session.attempts_left <= MAX_ATTEMPTS
        if usable:
            assert 0 < self.store.remaining_us() <= LIFETIME_US


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
