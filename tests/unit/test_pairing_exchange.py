"""The key exchange: who knows the code agrees on keys; who does not learns nothing to test a guess with."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spake2.ed25519_basic import bytes_to_element
from spake2.parameters.ed25519 import ParamsEd25519

from instar_node.errors import InstarError
from instar_node.identity.wordlist import words
from instar_node.pairing.exchange import (
    HostExchange,
    JoinerExchange,
    Keys,
    WrongGuessError,
    check_confirmation,
    commitment_to,
)
from instar_node.pairing.sas import EMOJI, short_string
from instar_node.pairing.words import new_code, normal_code

CODE, OTHER = "RIVER-STONE-4071", "RIVER-STONE-4072"
JOINER, HOST, SESSION = "m_" + "a" * 32, "m_" + "b" * 32, "5" * 32


class Run:
    """One exchange between two honest machines, every message kept as a listener would."""

    def __init__(self, joiner_code: str = CODE, host_code: str = CODE) -> None:
        self.joiner = JoinerExchange(joiner_code, JOINER)
        self.host = HostExchange(host_code, SESSION, HOST, JOINER, self.joiner.commitment)
        self.joiner_keys = self.joiner.receive(SESSION, HOST, self.host.share)
        self.confirm = self.joiner_keys.confirmation("joiner")
        self.sealed = self.joiner_keys.seal("joiner", b"who I am")

    def messages(self) -> dict[str, bytes]:
        return {
            "commitment": self.joiner.commitment,
            "host share": self.host.share,
            "joiner share": self.joiner.share,
            "confirm": self.confirm,
            "sealed": self.sealed,
        }

    def host_keys(self) -> Keys:
        return self.host.receive(self.joiner.share, self.confirm)


def test_the_right_code_gives_both_sides_the_same_keys_and_short_string() -> None:
    run = Run()
    keys = run.host_keys()
    assert keys.unseal("joiner", run.sealed) == b"who I am"
    assert run.joiner_keys.unseal("host", keys.seal("host", b"grant")) == b"grant"
    check_confirmation(run.joiner_keys, "host", keys.confirmation("host"))
    assert keys.short_string() == run.joiner_keys.short_string()
    assert keys.verdict(True) == run.joiner_keys.verdict(True) != keys.verdict(False)


def test_a_wrong_code_is_refused_and_opens_nothing() -> None:
    run = Run(joiner_code=OTHER)
    with pytest.raises(WrongGuessError):
        run.host_keys()
    with pytest.raises(WrongGuessError):
        Run().joiner_keys.unseal("joiner", run.sealed)


def test_a_host_without_the_code_cannot_prove_itself() -> None:
    run = Run(host_code=OTHER)
    other_keys = Run().host_keys()
    with pytest.raises(WrongGuessError):
        check_confirmation(run.joiner_keys, "host", other_keys.confirmation("host"))
    with pytest.raises(WrongGuessError):  # nor by sending the joiner's own proof back
        check_confirmation(run.joiner_keys, "host", run.confirm)


def test_no_message_is_a_function_of_the_code() -> None:
    """Equal codes give different messages each time: there is nothing to look a guess up with."""
    seen = [Run().messages() for _ in range(8)]
    for name in seen[0]:
        assert len({messages[name] for messages in seen}) == len(seen), name


def test_every_guess_fits_what_a_listener_recorded() -> None:
    """A listener can only subtract a guessed code from a share. For a wrong code as for the right one, that
    leaves an element of the same group, which some secret explains: no guess is ruled out."""
    run = Run()
    params = ParamsEd25519
    for share, blinding in ((run.joiner.share, params.M), (run.host.share, params.N)):
        point = bytes_to_element(share[1:])
        for guess in (CODE, OTHER, "ABANDON-ZOO-0000", "ZOO-ABANDON-9999"):
            scalar = params.group.password_to_scalar(guess.encode())
            explained = point.add(blinding.scalarmult(-scalar))
            assert bytes_to_element(explained.to_bytes()) is not None


def test_a_recorded_run_answers_the_same_to_right_and_wrong_guesses() -> None:
    """With the whole transcript, a listener who builds keys from a guess fails with the right code too."""
    run = Run()
    recorded = run.messages()
    for guess in (CODE, OTHER):
        as_joiner = JoinerExchange(guess, JOINER).receive(SESSION, HOST, recorded["host share"])
        assert as_joiner.confirmation("joiner") != recorded["confirm"]
        with pytest.raises(WrongGuessError):
            as_joiner.unseal("joiner", recorded["sealed"])
        as_host = HostExchange(guess, SESSION, HOST, JOINER, recorded["commitment"])
        with pytest.raises(WrongGuessError):
            as_host.receive(recorded["joiner share"], recorded["confirm"])


def test_a_share_other_than_the_committed_one_is_refused() -> None:
    """A man in the middle who knows the code must choose his share before he sees ours."""
    run = Run()
    late = JoinerExchange(CODE, JOINER)
    late.commitment = run.joiner.commitment  # he derives his keys from what he had promised
    keys = late.receive(SESSION, HOST, run.host.share)
    with pytest.raises(WrongGuessError):
        run.host.receive(late.share, keys.confirmation("joiner"))


def test_a_commitment_is_bound_to_its_machine() -> None:
    share = Run().joiner.share
    assert commitment_to(share, JOINER) != commitment_to(share, HOST)


@pytest.mark.parametrize("part", ["session", "host", "joiner"])
def test_keys_depend_on_session_and_both_machines(part: str) -> None:
    joiner = JoinerExchange(CODE, JOINER)
    session = "6" * 32 if part == "session" else SESSION
    host_id = "m_" + "c" * 32 if part == "host" else HOST
    joiner_id = "m_" + "d" * 32 if part == "joiner" else JOINER
    commitment = commitment_to(joiner.share, joiner_id)
    host = HostExchange(CODE, session, host_id, joiner_id, commitment)
    keys = joiner.receive(SESSION, HOST, host.share)
    with pytest.raises(WrongGuessError):
        host.receive(joiner.share, keys.confirmation("joiner"))


def test_shares_that_are_no_group_elements_or_our_own_are_refused() -> None:
    for share in (b"", b"B", b"B" + bytes(32), b"B" + b"\xff" * 32, b"B" + b"\x01" + bytes(31)):
        with pytest.raises(WrongGuessError):
            JoinerExchange(CODE, JOINER).receive(SESSION, HOST, share)
    joiner = JoinerExchange(CODE, JOINER)
    with pytest.raises(WrongGuessError):
        joiner.receive(SESSION, HOST, b"B" + joiner.share[1:])


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=33, max_size=33) | st.binary(min_size=32, max_size=32).map(lambda b: b"B" + b))
def test_whatever_arrives_as_a_share_is_refused_or_leads_to_no_agreement(share: bytes) -> None:
    try:
        keys = JoinerExchange(CODE, JOINER).receive(SESSION, HOST, share)
    except WrongGuessError:
        return
    with pytest.raises(WrongGuessError):
        check_confirmation(keys, "host", keys.confirmation("joiner"))


@pytest.mark.parametrize("sealed", [b"", b"short", b"x" * 64])
def test_what_was_not_sealed_with_the_key_does_not_open(sealed: bytes) -> None:
    with pytest.raises(WrongGuessError):
        Run().joiner_keys.unseal("host", sealed)


# -- words ----------------------------------------------------------------------------------------------


def test_new_codes_have_the_form_and_differ() -> None:
    codes = {new_code() for _ in range(50)}
    assert len(codes) == 50
    assert all(normal_code(code) == code for code in codes)


@given(
    st.sampled_from(words()),
    st.sampled_from(words()),
    st.integers(0, 9_999),
    st.sampled_from(["-", " ", "  ", " - ", "_", "–"]),
    st.booleans(),
)
def test_codes_are_taken_in_any_case_and_spacing(
    one: str, two: str, number: int, gap: str, upper: bool
) -> None:
    typed = f" {one}{gap}{two}{gap}{number:04d}\n"
    assert normal_code(typed.upper() if upper else typed.title()) == f"{one}-{two}-{number:04d}".upper()


@pytest.mark.parametrize(
    "typed", ["", "RIVER", "RIVER-STONE", "RIVER-STONE-407", "RIVER-STONE-40711", "a-b-c-d"]
)
def test_what_is_no_code_is_refused_before_it_is_sent(typed: str) -> None:
    with pytest.raises(InstarError) as refusal:
        normal_code(typed)
    assert refusal.value.extra == {"field": "code"}


def test_a_misspelt_word_is_named_with_a_suggestion() -> None:
    with pytest.raises(InstarError) as refusal:
        normal_code("RIVVER-STONE-4071")
    assert "RIVVER" in refusal.value.message
    assert "RIVER" in refusal.value.hint


# -- the short string -----------------------------------------------------------------------------------


def test_the_table_has_64_pictures_with_names_of_their_own() -> None:
    assert len(EMOJI) == 64
    assert len({picture for picture, _ in EMOJI}) == len({name for _, name in EMOJI}) == 64
    assert all(len(picture) == 1 for picture, _ in EMOJI)  # one code point: two cells in every terminal


def test_digits_and_pictures_come_from_different_bits() -> None:
    base = bytearray(sha256(b"x").digest())
    before = short_string(bytes(base))
    base[0] ^= 1
    digits_changed = short_string(bytes(base))
    base[10] ^= 1
    both_changed = short_string(bytes(base))
    assert digits_changed.emoji == before.emoji
    assert digits_changed.digits != before.digits
    assert both_changed.emoji != before.emoji
    assert len(before.digits) == 6
    assert len(before.emoji) == len(before.names) == 4


def test_short_strings_are_spread_evenly() -> None:
    strings = [short_string(sha256(n.to_bytes(4, "big")).digest()) for n in range(4_000)]
    pictures = Counter(name for string in strings for name in string.names)
    assert len(pictures) == 64
    assert max(pictures.values()) < 2 * min(pictures.values())
    assert len({string.digits for string in strings}) > 3_950
