"""A machine's two key pairs: Ed25519 to sign (PyNaCl), X25519 for tunnels and secrets (cryptography).

The machine id is derived from the signing key, so no other key can claim it; the signing key signs the
encryption key, so the two cannot be mixed. Reading ``identity.json`` alone imports no cryptography, which
keeps ``instar whoami`` quick.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from instar_node.errors import InstarError
from instar_node.identity.wordlist import words_for
from instar_node.storage.atomic import read_json, write_atomic
from instar_node.storage.private import private_dir, refuse_if_exposed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from nacl.signing import SigningKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64
FINGERPRINT_WORDS = 5
PURPOSE_ENCRYPTION_KEY = "instar-encryption-key/1"


class PublicIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What everybody may know of a machine; the content of ``identity.json``."""

    machine_id: str
    signing_public: bytes
    """Raw Ed25519 public key."""
    encryption_public: bytes
    """Raw X25519 public key."""
    cross_signature: bytes
    """Signature of the encryption key by the signing key."""

    @property
    def fingerprint(self) -> str:
        """Five words for people to compare."""
        return fingerprint(self.signing_public)

    def check(self) -> None:
        """Raise ``InstarError("bad-identity")`` unless id, signing key and encryption key belong together."""
        if len(self.signing_public) != KEY_BYTES or len(self.encryption_public) != KEY_BYTES:
            raise _bad_identity("a key has the wrong length")
        if self.machine_id != machine_id_of(self.signing_public):
            raise _bad_identity("the machine id does not belong to the signing key")
        if not verify(
            self.signing_public, PURPOSE_ENCRYPTION_KEY, "", self.encryption_public, self.cross_signature
        ):
            raise _bad_identity("the encryption key is not signed by the signing key")


class MachineIdentity:
    """This machine's keys, read once and kept in memory."""

    def __init__(self, public: PublicIdentity, signing: SigningKey, encryption: X25519PrivateKey) -> None:
        self.public = public
        self.encryption_private = encryption
        self._signing = signing

    @property
    def machine_id(self) -> str:
        """``m_`` and 32 hex digits, derived from the signing key."""
        return self.public.machine_id

    def sign(self, purpose: str, mesh_id: str, data: bytes) -> bytes:
        """Sign ``data`` for one purpose in one mesh (64 bytes); it verifies for no other."""
        return self._signing.sign(framed(purpose, mesh_id, data)).signature

    def sign_commit(self, payload: bytes) -> str:
        """The armored SSH signature of a git commit's bytes. It begins with other bytes than any framed
        signature, so neither can stand for the other."""
        from instar_node.identity.commit_signature import sign_payload

        return sign_payload(
            payload, self.public.signing_public, lambda blob: self._signing.sign(blob).signature
        )

    @classmethod
    def load_or_create(cls, folder: Path) -> MachineIdentity:
        """Load the identity of this folder, or make one if the folder holds none of its files."""
        if any((folder / name).exists() for name in ("identity.json", "signing.key", "encryption.key")):
            return cls.load(folder)
        return cls._create(folder)

    @classmethod
    def load(cls, folder: Path) -> MachineIdentity:
        """Read and check the three files.

        Raises ``InstarError``: ``no-identity``, ``exposed-file`` (others can read a key) or ``bad-identity``
        (damaged, missing or mismatched), naming the file.
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
        from nacl.signing import SigningKey

        public = read_public(folder)
        refuse_if_exposed(folder)
        signing = SigningKey(_read_key(folder / "signing.key"))
        encryption = X25519PrivateKey.from_private_bytes(_read_key(folder / "encryption.key"))
        if bytes(signing.verify_key) != public.signing_public:
            raise _bad_file(folder / "signing.key", "is not the key of identity.json")
        if encryption.public_key().public_bytes_raw() != public.encryption_public:
            raise _bad_file(folder / "encryption.key", "is not the key of identity.json")
        try:
            public.check()
        except InstarError as error:
            raise _bad_file(folder / "identity.json", f"does not hold together: {error.message}") from error
        return cls(public, signing, encryption)

    @classmethod
    def _create(cls, folder: Path) -> MachineIdentity:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
        from nacl.signing import SigningKey

        signing, encryption = SigningKey.generate(), X25519PrivateKey.generate()
        signing_public = bytes(signing.verify_key)
        encryption_public = encryption.public_key().public_bytes_raw()
        claim = framed(PURPOSE_ENCRYPTION_KEY, "", encryption_public)
        public = PublicIdentity(
            machine_id_of(signing_public), signing_public, encryption_public, signing.sign(claim).signature
        )
        private_dir(folder)
        refuse_if_exposed(folder)
        write_atomic(folder / "signing.key", base64.b64encode(bytes(signing)) + b"\n")
        write_atomic(folder / "encryption.key", base64.b64encode(encryption.private_bytes_raw()) + b"\n")
        write_atomic(folder / "identity.json", msgspec.json.format(msgspec.json.encode(public)) + b"\n")
        return cls(public, signing, encryption)


def read_public(folder: Path) -> PublicIdentity:
    """This machine's public identity, without touching its keys or importing cryptography.

    Raises ``InstarError``: ``no-identity`` or ``file-damaged``.
    """
    path = folder / "identity.json"
    if not path.exists() and not (folder / "signing.key").exists():
        raise InstarError(
            "no-identity",
            f"there is no machine identity in {folder}",
            "start instar-tui once (it makes one), or name the right folder with --home",
            status=404,
        )
    return read_json(path, PublicIdentity, _RESTORE)


def machine_id_of(signing_public: bytes) -> str:
    """``m_`` and the first 32 hex digits of the SHA-256 of the raw Ed25519 public key."""
    return "m_" + sha256(signing_public).hexdigest()[:32]


def fingerprint(signing_public: bytes) -> str:
    """Five words for people to compare: the first 55 bits of the hash that the machine id comes from."""
    return words_for(signing_public, FINGERPRINT_WORDS)


def mesh_name(mesh_id: str) -> str:
    """Two words that tell meshes apart at a glance, such as ``quiet-river``. Not a proof of anything."""
    return words_for(mesh_id.encode(), 2)


def framed(purpose: str, mesh_id: str, data: bytes) -> bytes:
    """The bytes a signature covers: purpose, mesh id and data, each with its length before it (u32 BE)."""
    parts = (purpose.encode(), mesh_id.encode(), data)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def verify(public: bytes, purpose: str, mesh_id: str, data: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is by the Ed25519 key ``public`` over exactly this purpose, mesh and data."""
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public).verify(framed(purpose, mesh_id, data), signature)
    except BadSignatureError:
        return False
    return True


_RESTORE = (
    "restore the machine/ folder from a backup; or move it aside and start again: this machine is then a "
    "new one and has to be paired anew"
)


def _read_key(path: Path) -> bytes:
    try:
        refuse_if_exposed(path)
        raw = base64.b64decode(path.read_bytes().strip(), validate=True)
    except OSError as error:
        raise _bad_file(path, f"cannot be read: {error.strerror}") from error
    except binascii.Error as error:
        raise _bad_file(path, "is damaged: not base64") from error
    if len(raw) != KEY_BYTES:
        raise _bad_file(path, f"is damaged: {len(raw)} bytes instead of {KEY_BYTES}")
    return raw


def _bad_file(path: Path, what: str) -> InstarError:
    return InstarError("bad-identity", f"{path} {what}", _RESTORE, status=500)


def _bad_identity(what: str) -> InstarError:
    return InstarError("bad-identity", what, status=422)
