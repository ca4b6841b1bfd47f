"""``Noise_KK_25519_AESGCM_SHA256`` (Noise Protocol Framework, revision 34), without any I/O.

KK: both sides know each other's static key beforehand, which is exactly what pairing leaves behind. After
message 2 both sides are authenticated and later traffic has strong forward secrecy. Message 1 alone proves
nothing (it can be replayed, and forged by whoever stole the responder's key), so nothing may be done on it
but answering it.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PROTOCOL_NAME = b"Noise_KK_25519_AESGCM_SHA256"
HASH_LENGTH = 32
KEY_LENGTH = 32
TAG_LENGTH = 16
_MAX_NONCE = 2**64 - 1
_Pair = tuple[X25519PrivateKey, X25519PublicKey | None]


class NoiseError(Exception):
    """A message did not authenticate, or came when none was expected. The session is finished."""


class CipherState:
    """One direction's key and message counter (section 5.1).

    The counter is the nonce and never travels, so a message that is altered, repeated, missing or out of
    order does not decrypt.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.count = 0
        """Messages sealed or opened so far."""

    def _nonce(self) -> bytes:
        if self.count >= _MAX_NONCE:
            raise NoiseError("nonces exhausted")
        return b"\0\0\0\0" + self.count.to_bytes(8, "big")

    def encrypt(self, plaintext: bytes, associated: bytes = b"") -> bytes:
        """Seal the next message of this direction."""
        sealed = self._aead.encrypt(self._nonce(), plaintext, associated)
        self.count += 1
        return sealed

    def decrypt(self, sealed: bytes, associated: bytes = b"") -> bytes:
        """Open the next message of this direction.

        Raises:
            NoiseError: It is not the next message as the other side sealed it.
        """
        try:
            plaintext = self._aead.decrypt(self._nonce(), sealed, associated)
        except (InvalidTag, ValueError) as error:
            raise NoiseError("message does not authenticate") from error
        self.count += 1
        return plaintext


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """HKDF with two outputs (section 4.3)."""
    secret = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(secret, b"\x01", "sha256")
    return first, hmac.digest(secret, first + b"\x02", "sha256")


class Handshake:
    """One run of the two-message KK handshake, as initiator or as responder.

    The initiator calls ``write_message`` then ``read_message``, the responder the other way round; then both
    call ``split``.

    Args:
        initiator: Whether this side sends message 1.
        static_private: This side's long-term key.
        remote_static_public: The other side's long-term public key, 32 raw bytes.
        prologue: Context both sides must agree on byte for byte.
        ephemeral: Only for published test vectors; a fresh key otherwise.

    Raises:
        NoiseError: ``remote_static_public`` is not a public key.
    """

    def __init__(
        self,
        initiator: bool,
        static_private: X25519PrivateKey,
        remote_static_public: bytes,
        prologue: bytes,
        *,
        ephemeral: X25519PrivateKey | None = None,
    ) -> None:
        self._initiator = initiator
        self._static = static_private
        self._ephemeral = ephemeral or X25519PrivateKey.generate()
        self._remote_static = _public_key(remote_static_public)
        self._remote_ephemeral: X25519PublicKey | None = None
        self._hash = PROTOCOL_NAME.ljust(HASH_LENGTH, b"\0")
        self._chaining_key = self._hash
        self._cipher: CipherState | None = None
        self._messages = 0
        self._finished = False
        mine, theirs = static_private.public_key().public_bytes_raw(), remote_static_public
        self._mix_hash(prologue)
        for static in (mine, theirs) if initiator else (theirs, mine):
            self._mix_hash(static)

    @property
    def handshake_hash(self) -> bytes:
        """Hash of everything said so far; after message 2 it names this session uniquely (section 11.2)."""
        return self._hash

    def write_message(self, payload: bytes = b"") -> bytes:
        """The next handshake message, carrying ``payload``."""
        self._take_turn(writing=True)
        ephemeral = self._ephemeral.public_key().public_bytes_raw()
        self._mix_hash(ephemeral)
        self._mix_shared_secrets()
        assert self._cipher is not None
        sealed = self._cipher.encrypt(payload, self._hash)
        self._mix_hash(sealed)
        self._finished = self._messages == 2
        return ephemeral + sealed

    def read_message(self, message: bytes) -> bytes:
        """Check the other side's message and return its payload.

        Raises:
            NoiseError: It does not authenticate under the agreed keys and prologue, or is out of turn.
        """
        self._take_turn(writing=False)
        if len(message) < KEY_LENGTH + TAG_LENGTH:
            raise NoiseError("handshake message too short")
        ephemeral, sealed = message[:KEY_LENGTH], message[KEY_LENGTH:]
        self._remote_ephemeral = _public_key(ephemeral)
        self._mix_hash(ephemeral)
        self._mix_shared_secrets()
        assert self._cipher is not None
        payload = self._cipher.decrypt(sealed, self._hash)
        self._mix_hash(sealed)
        self._finished = self._messages == 2
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """The transport ciphers ``(sending, receiving)`` of this side (section 5.2, ``Split``)."""
        if not self._finished:
            raise NoiseError("handshake is not finished")
        first, second = _hkdf(self._chaining_key, b"")
        if self._initiator:
            return CipherState(first), CipherState(second)
        return CipherState(second), CipherState(first)

    def _take_turn(self, *, writing: bool) -> None:
        initiators_turn = self._messages == 0
        if self._messages >= 2 or writing != (initiators_turn == self._initiator):
            raise NoiseError("handshake message out of turn")
        self._messages += 1

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_shared_secrets(self) -> None:
        """The pattern itself: ``-> e, es, ss`` and ``<- e, ee, se``.

        In ``es`` and ``se`` the first letter is the initiator's key, the second the responder's.
        """
        static, ephemeral = self._static, self._ephemeral
        remote_static, remote_ephemeral = self._remote_static, self._remote_ephemeral
        es: _Pair = (ephemeral, remote_static) if self._initiator else (static, remote_ephemeral)
        se: _Pair = (static, remote_ephemeral) if self._initiator else (ephemeral, remote_static)
        ss: _Pair = (static, remote_static)
        ee: _Pair = (ephemeral, remote_ephemeral)
        tokens = [es, ss] if self._messages == 1 else [ee, se]
        for private, public in tokens:
            self._mix_key(private, public)

    def _mix_key(self, private: X25519PrivateKey, public: X25519PublicKey | None) -> None:
        assert public is not None
        try:
            secret = private.exchange(public)
        except ValueError as error:  # a low-order point: the shared secret would be all zeros
            raise NoiseError("unusable public key") from error
        self._chaining_key, key = _hkdf(self._chaining_key, secret)
        self._cipher = CipherState(key)


def _public_key(raw: bytes) -> X25519PublicKey:
    try:
        return X25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise NoiseError("not an X25519 public key") from error
