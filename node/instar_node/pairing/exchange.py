"""The key exchange of pairing: SPAKE2 with a commitment, key confirmation and sealed payloads. Pure.

Who watches or relays cannot test a guess of the code: each guess needs a run with somebody who knows it.
On top of SPAKE2 (Abdalla, Pointcheval 2005; package ``spake2``):

- the joiner first sends a hash *commitment* to its share, as in ZRTP (RFC 6189): a man in the middle who
  knows the code cannot search for shares that make the short strings of both sides equal;
- all keys depend on purpose, version, session id, both roles and machine ids, commitment and both shares;
- the joiner proves the code first, so the host learns of a wrong guess before it reveals anything.

Machine ids are hashes of signing keys and those sign the encryption keys, so the ids bind all four keys.
Each derived key seals one message only, which is why the nonce of AES-GCM can be constant.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from instar_node.identity.keys import framed
from instar_node.pairing.sas import ShortString, short_string

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PURPOSE = "instar-pair/1"
_ONLY_NONCE = bytes(12)


class WrongGuessError(Exception):
    """The other side does not hold the code, or somebody altered a message. Never says which."""


class Pake(Protocol):
    """One side of a password-authenticated key exchange; each object makes one run."""

    def start(self) -> bytes:
        """Our share."""

    def finish(self, share: bytes) -> bytes:
        """The key from the other's share. Equal on both sides only if both used the same code."""


def _joiner_pake(code: str) -> Pake:
    from spake2 import SPAKE2_A

    pake: Pake = SPAKE2_A(code.encode(), idA=b"instar joiner", idB=b"instar host")
    return pake


def _host_pake(code: str) -> Pake:
    from spake2 import SPAKE2_B

    pake: Pake = SPAKE2_B(code.encode(), idA=b"instar joiner", idB=b"instar host")
    return pake


def commitment_to(share: bytes, machine_id: str) -> bytes:
    """The joiner's promise to use this share; a share is random enough to be hidden by its hash."""
    return sha256(framed(f"{PURPOSE} commitment", machine_id, share)).digest()


class Keys:
    """Everything derived from one finished run."""

    def __init__(self, secret: bytes, transcript: bytes) -> None:
        self._secret = secret
        self._transcript = transcript

    def confirmation(self, role: str) -> bytes:
        """The proof that ``role`` (``joiner`` or ``host``) holds the same key."""
        return self._mac(f"confirm {role}")

    def verdict(self, accept: bool) -> bytes:
        """The proof that a verdict on the short string comes from the joiner of this run."""
        return self._mac(f"verdict {'yes' if accept else 'no'}")

    def seal(self, role: str, payload: bytes) -> bytes:
        """Encrypt the one payload that ``role`` sends."""
        return self._cipher(role).encrypt(_ONLY_NONCE, payload, self._transcript)

    def unseal(self, role: str, sealed: bytes) -> bytes:
        """Decrypt the payload that ``role`` sent. Raises ``WrongGuessError``."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher(role).decrypt(_ONLY_NONCE, sealed, self._transcript)
        except InvalidTag as error:
            raise WrongGuessError from error

    def short_string(self) -> ShortString:
        """What the two people compare."""
        return short_string(self._derive("short string"))

    def _mac(self, label: str) -> bytes:
        return hmac.digest(self._derive(label), self._transcript, "sha256")

    def _cipher(self, role: str) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derive(f"seal {role}"))

    def _derive(self, label: str) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = framed(PURPOSE, label, b"")
        return HKDF(algorithm=SHA256(), length=32, salt=self._transcript, info=info).derive(self._secret)


class JoinerExchange:
    """The joiner's side of one run."""

    def __init__(self, code: str, machine_id: str) -> None:
        self._pake = _joiner_pake(code)
        self._machine_id = machine_id
        self.share = self._pake.start()
        self.commitment = commitment_to(self.share, machine_id)

    def receive(self, session: str, host_id: str, host_share: bytes) -> Keys:
        """Take the host's answer to the commitment. Raises ``WrongGuessError`` for an impossible share."""
        secret = _finish(self._pake, host_share)
        transcript = _transcript(session, self._machine_id, host_id, self.commitment, self.share, host_share)
        return Keys(secret, transcript)


class HostExchange:
    """The host's side of one run."""

    def __init__(self, code: str, session: str, host_id: str, joiner_id: str, commitment: bytes) -> None:
        self._pake = _host_pake(code)
        self.session = session
        self.joiner_id = joiner_id
        self._host_id = host_id
        self._commitment = commitment
        self.share = self._pake.start()

    def receive(self, share: bytes, confirm: bytes) -> Keys:
        """Check the joiner's proof. Raises ``WrongGuessError``; the caller has spent an attempt before."""
        if not hmac.compare_digest(commitment_to(share, self.joiner_id), self._commitment):
            raise WrongGuessError
        secret = _finish(self._pake, share)
        transcript = _transcript(
            self.session, self.joiner_id, self._host_id, self._commitment, share, self.share
        )
        keys = Keys(secret, transcript)
        check_confirmation(keys, "joiner", confirm)
        return keys


def check_confirmation(keys: Keys, role: str, confirm: bytes) -> None:
    """Raise ``WrongGuessError`` unless ``confirm`` proves that ``role`` holds the same key."""
    if not hmac.compare_digest(keys.confirmation(role), confirm):
        raise WrongGuessError


def _finish(pake: Pake, share: bytes) -> bytes:
    from spake2 import SPAKEError
    from spake2.ed25519_basic import NotOnCurve

    try:
        return pake.finish(share)
    except (SPAKEError, NotOnCurve, ValueError) as error:  # not a point of the group, or our own share
        raise WrongGuessError from error


def _transcript(
    session: str, joiner_id: str, host_id: str, commitment: bytes, joiner_share: bytes, host_share: bytes
) -> bytes:
    parts: list[tuple[str, bytes]] = [
        ("joiner", joiner_id.encode()),
        ("host", host_id.encode()),
        ("commitment", commitment),
        ("joiner share", joiner_share),
        ("host share", host_share),
    ]
    return sha256(b"".join(framed(PURPOSE, f"{session} {label}", value) for label, value in parts)).digest()
