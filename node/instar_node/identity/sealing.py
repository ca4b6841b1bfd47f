"""Sealing a secret for several machines: AES-256-GCM under a key of its own, wrapped for each reader.

Each wrap is an ephemeral-static X25519 exchange and HKDF-SHA256 (as HPKE's base mode, RFC 9180, with fewer
choices). Everything is bound to what it belongs to: a value to mesh, name and version, a wrap to its reader
as well, so that no part can be moved elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

from instar_node.errors import InstarError
from instar_node.identity.keys import KEY_BYTES, framed

PURPOSE = "instar-vault/1"
NONCE_BYTES = 12
TAG_BYTES = 16
_ONLY_NONCE = bytes(NONCE_BYTES)
"""A wrapping key seals one data key and is never made again."""


class WrappedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data key that one machine can unwrap."""

    ephemeral: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    sealed: Annotated[bytes, Meta(min_length=KEY_BYTES + TAG_BYTES, max_length=KEY_BYTES + TAG_BYTES)]


class Place(msgspec.Struct, frozen=True):
    """What a sealed value belongs to."""

    mesh_id: str
    name: str
    version: int

    def bound(self, label: str) -> bytes:
        """The bytes that bind a key or a value to this place."""
        return framed(f"{PURPOSE} {label}", self.mesh_id, f"{self.version} {self.name}".encode())


def new_data_key() -> bytes:
    """A key for one value in one version."""
    return os.urandom(KEY_BYTES)


def seal_value(place: Place, key: bytes, value: str) -> tuple[bytes, bytes]:
    """Nonce and ciphertext of a value."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce, AESGCM(key).encrypt(nonce, value.encode(), place.bound("value"))


def open_value(place: Place, key: bytes, nonce: bytes, sealed: bytes) -> str:
    """The value. Raises ``InstarError("secret-damaged")``."""
    try:
        return AESGCM(key).decrypt(nonce, sealed, place.bound("value")).decode()
    except (InvalidTag, UnicodeDecodeError) as error:
        raise _damaged(place) from error


def wrap_for(place: Place, key: bytes, readers: Mapping[str, bytes]) -> dict[str, WrappedKey]:
    """The data key for each reader (id to X25519 public key)."""
    return {reader: _wrap(place, key, reader, public) for reader, public in readers.items()}


def unwrap(place: Place, wrapped: WrappedKey, reader: str, private: X25519PrivateKey) -> bytes:
    """The data key, by the reader's own key. Raises ``InstarError("secret-damaged")``."""
    own = private.public_key().public_bytes_raw()
    try:
        ephemeral = X25519PublicKey.from_public_bytes(wrapped.ephemeral)
        kek = _wrapping_key(place, reader, own, wrapped.ephemeral, private, ephemeral)
        return AESGCM(kek).decrypt(_ONLY_NONCE, wrapped.sealed, None)
    except (InvalidTag, ValueError) as error:
        raise _damaged(place) from error


def _wrap(place: Place, key: bytes, reader: str, public: bytes) -> WrappedKey:
    ephemeral = X25519PrivateKey.generate()
    shown = ephemeral.public_key().public_bytes_raw()
    theirs = X25519PublicKey.from_public_bytes(public)
    kek = _wrapping_key(place, reader, public, shown, ephemeral, theirs)
    return WrappedKey(shown, AESGCM(kek).encrypt(_ONLY_NONCE, key, None))


def _wrapping_key(
    place: Place,
    reader: str,
    reader_public: bytes,
    ephemeral_public: bytes,
    private: X25519PrivateKey,
    public: X25519PublicKey,
) -> bytes:
    info = place.bound(f"key for {reader}")
    salt = ephemeral_public + reader_public
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(private.exchange(public))


def _damaged(place: Place) -> InstarError:
    return InstarError(
        "secret-damaged",
        f"the secret {place.name} (version {place.version}) cannot be opened with this machine's key",
        f"set it again: instar secret set {place.name}",
        status=500,
    )
