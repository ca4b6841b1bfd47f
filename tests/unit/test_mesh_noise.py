"""The Noise handshake against an independent implementation, and its refusals."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from noise.connection import Keypair, NoiseConnection

from instar_node.mesh.noise import PROTOCOL_NAME, Handshake, NoiseError

PROLOGUE = b"prologue of both"


def keys() -> tuple[X25519PrivateKey, bytes]:
    private = X25519PrivateKey.generate()
    return private, private.public_key().public_bytes_raw()


def oracle(private: X25519PrivateKey, remote_public: bytes, *, initiator: bool) -> NoiseConnection:
    other = NoiseConnection.from_name(PROTOCOL_NAME)
    other.set_prologue(PROLOGUE)
    other.set_keypair_from_private_bytes(Keypair.STATIC, private.private_bytes_raw())
    other.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote_public)
    (other.set_as_initiator if initiator else other.set_as_responder)()
    other.start_handshake()
    return other


@pytest.mark.parametrize("we_initiate", [True, False])
def test_speaks_noise_with_an_independent_implementation(we_initiate: bool) -> None:
    mine, my_public = keys()
    theirs, their_public = keys()
    ours = Handshake(we_initiate, mine, their_public, PROLOGUE)
    other = oracle(theirs, my_public, initiator=not we_initiate)
    if we_initiate:
        assert bytes(other.read_message(ours.write_message(b"one"))) == b"one"
        assert ours.read_message(bytes(other.write_message(b"two"))) == b"two"
    else:
        assert ours.read_message(bytes(other.write_message(b"one"))) == b"one"
        assert bytes(other.read_message(ours.write_message(b"two"))) == b"two"
    assert ours.handshake_hash == other.get_handshake_hash()
    sending, receiving = ours.split()
    for n in range(3):
        text = b"message %d" % n
        assert bytes(other.decrypt(sending.encrypt(text))) == text
        assert receiving.decrypt(bytes(other.encrypt(text))) == text


def pair(prologues: tuple[bytes, bytes] = (PROLOGUE, PROLOGUE)) -> tuple[Handshake, Handshake]:
    one, one_public = keys()
    two, two_public = keys()
    return Handshake(True, one, two_public, prologues[0]), Handshake(False, two, one_public, prologues[1])


def test_another_prologue_is_refused() -> None:
    caller, called = pair((b"mesh A", b"mesh B"))
    with pytest.raises(NoiseError):
        called.read_message(caller.write_message())


def test_a_caller_without_the_expected_static_key_is_refused() -> None:
    caller, _ = pair()
    _, called = pair()
    with pytest.raises(NoiseError):
        called.read_message(caller.write_message())


def test_a_called_machine_without_its_static_key_is_refused() -> None:
    one, one_public = keys()
    _, two_public = keys()
    impostor, _ = keys()
    caller = Handshake(True, one, two_public, PROLOGUE)
    caller.write_message()
    answer = Handshake(False, impostor, one_public, PROLOGUE)
    answer._messages = 1  # it cannot read message 1, so it makes an answer up
    answer._remote_ephemeral = impostor.public_key()
    with pytest.raises(NoiseError):
        caller.read_message(answer.write_message())


def finished() -> tuple[Handshake, Handshake]:
    caller, called = pair()
    called.read_message(caller.write_message())
    caller.read_message(called.write_message())
    return caller, called


@pytest.mark.parametrize("fault", ["altered", "replayed", "reordered", "truncated"])
def test_anything_but_the_next_message_does_not_open(fault: str) -> None:
    caller, called = finished()
    sending, receiving = caller.split()[0], called.split()[1]
    first, second = sending.encrypt(b"first"), sending.encrypt(b"second")
    if fault == "altered":
        first = bytes((first[0] ^ 1,)) + first[1:]
    elif fault == "replayed":
        receiving.decrypt(first)
    elif fault == "reordered":
        first = second
    else:
        first = first[:5]
    with pytest.raises(NoiseError):
        receiving.decrypt(first)


def test_messages_out_of_turn_are_refused() -> None:
    caller, called = pair()
    with pytest.raises(NoiseError, match="turn"):
        called.write_message()
    caller.write_message()
    with pytest.raises(NoiseError, match="turn"):
        caller.write_message()
    with pytest.raises(NoiseError, match="not finished"):
        caller.split()


def test_a_low_order_public_key_is_refused() -> None:
    private, _ = keys()
    with pytest.raises(NoiseError, match="unusable"):
        Handshake(True, private, bytes(32), PROLOGUE).write_message()


def test_a_refused_answer_leaves_no_keys() -> None:
    caller, called = pair()
    called.read_message(caller.write_message())
    with pytest.raises(NoiseError):
        caller.read_message(called.write_message()[:-1] + b"x")
    with pytest.raises(NoiseError, match="not finished"):
        caller.split()
