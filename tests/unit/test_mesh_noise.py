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


VECTORS = [
    (
        "",
        "test_msg_0 test_msg_1",
        "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"
        "f076403f2e0cdd201c5aae9d1539c9ad90262eefea9c90a5397b",
        "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466"
        "f12abbcda56565bf3fa3254fe35ad97f3e9d5e25aa296741ec3e",
    ),
    (
        "notsecret",
        "test_msg_0 test_msg_1",
        "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"
        "f076403f2e0cdd201c5a743d4aab448e6e3b29d4aa05628a5cbd",
        "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466"
        "f12abbcda56565bf3fa37b196488daf515b7434096aa1638346b",
    ),
    (
        "notsecret",
        " ",
        "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254d05f754c90d580f21b243391fe987af4",
        "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466f8f3babbd403b9665488570810b364dd",
    ),
]
"""Published vectors of Noise_KK_25519_AESGCM_SHA256 (github.com/flynn/noise, vectors.txt): prologue, the two
payloads, the two handshake messages. Keys and transport messages are the same in all of them."""
YELLOW = "0e79035855cdea04bc833d5ff63291042c6e12b0ac55ef2c4096deed1cbac2"
SUBMARINE = "c6dbcc2ac8f85338732b71a58f4c3be89bdfa7b2da8a8506ec4f1d2d9299a0"


def counted_key(first: int) -> X25519PrivateKey:
    """The private keys of the vectors count up: ``first``, ``first + 1``, …"""
    return X25519PrivateKey.from_private_bytes(bytes(range(first, first + 32)))


@pytest.mark.parametrize(("prologue", "payloads", "first", "second"), VECTORS)
def test_the_published_vectors_come_out(prologue: str, payloads: str, first: str, second: str) -> None:
    init, resp = counted_key(0x00), counted_key(0x01)
    publics = [key.public_key().public_bytes_raw() for key in (init, resp)]
    caller = Handshake(True, init, publics[1], prologue.encode(), ephemeral=counted_key(0x20))
    called = Handshake(False, resp, publics[0], prologue.encode(), ephemeral=counted_key(0x41))
    one, two = (payload.encode() for payload in payloads.split(" "))
    assert caller.write_message(one).hex() == first
    assert called.read_message(bytes.fromhex(first)) == one
    assert called.write_message(two).hex() == second
    assert caller.read_message(bytes.fromhex(second)) == two
    assert caller.split()[0].encrypt(b"yellowsubmarine").hex() == YELLOW
    assert called.split()[0].encrypt(b"submarineyellow").hex() == SUBMARINE


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
