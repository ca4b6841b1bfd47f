"""SSH signatures over git commits, made and checked in process (OpenSSH ``PROTOCOL.sshsig``).

The same bytes that ``ssh-keygen -Y sign -n git`` makes and ``git verify-commit`` checks, for Ed25519 keys.
What a signature proves is only which key signed which bytes; who may sign what is for the reader to judge.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable
from hashlib import sha256, sha512

import msgspec

from instar_node.errors import InstarError

MAGIC = b"SSHSIG"
VERSION = 1
NAMESPACE = b"git"
KEY_TYPE = b"ssh-ed25519"
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
LINE = 70
MAX_ARMORED = 2_048
"""Characters; a signature by an Ed25519 key has about 300."""

_HASHES = {b"sha256": sha256, b"sha512": sha512}


class CommitSignature(msgspec.Struct, frozen=True):
    """A parsed signature: who claims to have signed, and with what."""

    public: bytes
    """Raw Ed25519 public key."""
    hash_name: bytes
    signature: bytes

    def covers(self, payload: bytes) -> bool:
        """Whether the key signed exactly these bytes as a git object."""
        from nacl.exceptions import BadSignatureError
        from nacl.signing import VerifyKey

        try:
            VerifyKey(self.public).verify(signed_blob(payload, self.hash_name), self.signature)
        except BadSignatureError:
            return False
        return True


def sign_payload(payload: bytes, public: bytes, sign: Callable[[bytes], bytes]) -> str:
    """The armored signature of a commit's bytes; ``sign`` is raw Ed25519 with the key of ``public``."""
    signature = sign(signed_blob(payload, b"sha512"))
    blob = (
        MAGIC
        + struct.pack(">I", VERSION)
        + _string(_string(KEY_TYPE) + _string(public))
        + _string(NAMESPACE)
        + _string(b"")
        + _string(b"sha512")
        + _string(_string(KEY_TYPE) + _string(signature))
    )
    encoded = base64.b64encode(blob).decode()
    lines = [encoded[start : start + LINE] for start in range(0, len(encoded), LINE)]
    return "\n".join((BEGIN, *lines, END)) + "\n"


def parse_signature(armored: str) -> CommitSignature:
    """Read an armored signature strictly.

    Raises ``InstarError("bad-signature")`` for anything but an Ed25519 signature in namespace ``git``.
    """
    try:
        reader = _Reader(_unarmored(armored))
        if reader.take(len(MAGIC)) != MAGIC or reader.number() != VERSION:
            raise _bad("it is not an SSH signature of version 1")
        public = _typed(reader.string())
        if reader.string() != NAMESPACE or reader.string() != b"":
            raise _bad("it was not made for git")
        hash_name = reader.string()
        signature = _typed(reader.string())
        reader.end()
    except (struct.error, binascii.Error, ValueError) as error:
        raise _bad(f"it is malformed: {error}") from error
    if hash_name not in _HASHES or len(public) != 32 or len(signature) != 64:
        raise _bad("it is not by an Ed25519 key with SHA-2")
    return CommitSignature(public, hash_name, signature)


def signed_blob(payload: bytes, hash_name: bytes) -> bytes:
    """The bytes an SSH signature covers: magic, namespace, reserved, hash name, hash of the message."""
    digest = _HASHES[hash_name](payload).digest()
    return MAGIC + _string(NAMESPACE) + _string(b"") + _string(hash_name) + _string(digest)


def allowed_signer(principal: str, public: bytes, note: str) -> str:
    """One line of an ``allowed_signers`` file (``ssh-keygen(1)``), good for git commits only."""
    key = base64.b64encode(_string(KEY_TYPE) + _string(public)).decode()
    return f'{principal} namespaces="git" {KEY_TYPE.decode()} {key} {note}'.rstrip()


def _unarmored(armored: str) -> bytes:
    lines = armored.strip("\n").split("\n")
    if len(armored) > MAX_ARMORED or len(lines) < 3 or (lines[0], lines[-1]) != (BEGIN, END):
        raise _bad("it has no SSH armor")
    return base64.b64decode("".join(lines[1:-1]), validate=True)


def _typed(blob: bytes) -> bytes:
    """The content of a key or signature blob, whose type must be Ed25519."""
    reader = _Reader(blob)
    if reader.string() != KEY_TYPE:
        raise _bad("it is not by an Ed25519 key")
    content = reader.string()
    reader.end()
    return content


class _Reader:
    """Reads the wire encoding of RFC 4251, section 5; ``ValueError`` when it is cut short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise ValueError("it is cut short")
        self._at += count
        return part

    def number(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def string(self) -> bytes:
        return self.take(self.number())

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes follow it")


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _bad(why: str) -> InstarError:
    return InstarError("bad-signature", f"the commit's signature cannot be used: {why}", status=422)
