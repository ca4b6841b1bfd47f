"""Machine keys: derived ids, signatures bound to purpose and mesh, and refusals that name the file."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar_node.errors import InstarError
from instar_node.identity.keys import (
    MachineIdentity,
    PublicIdentity,
    fingerprint,
    framed,
    mesh_name,
    read_public,
    verify,
)
from instar_node.identity.wordlist import words, words_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "machine"


def test_the_identity_survives_a_restart(folder: Path) -> None:
    first, second = MachineIdentity.load_or_create(folder), MachineIdentity.load_or_create(folder)
    assert second.public == first.public
    assert second.encryption_private.private_bytes_raw() == first.encryption_private.private_bytes_raw()
    assert verify(first.public.signing_public, "p", "m", b"data", second.sign("p", "m", b"data"))


def test_the_machine_id_is_derived_from_the_signing_key(folder: Path) -> None:
    identity = MachineIdentity.load_or_create(folder)
    assert identity.machine_id == "m_" + sha256(identity.public.signing_public).hexdigest()[:32]


def test_all_files_are_private(folder: Path) -> None:
    MachineIdentity.load_or_create(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "identity.json": 0o600,
        "signing.key": 0o600,
        "encryption.key": 0o600,
    }


def test_a_signature_holds_for_its_purpose_mesh_data_and_key_only(folder: Path, tmp_path: Path) -> None:
    identity = MachineIdentity.load_or_create(folder)
    key = identity.public.signing_public
    other = MachineIdentity.load_or_create(tmp_path / "other").public.signing_public
    signature = identity.sign("lease", "mesh", b"data")
    assert verify(key, "lease", "mesh", b"data", signature)
    assert not verify(key, "registry", "mesh", b"data", signature)
    assert not verify(key, "lease", "other", b"data", signature)
    assert not verify(key, "lease", "mesh", b"Data", signature)
    assert not verify(other, "lease", "mesh", b"data", signature)
    assert not verify(key, "lease", "mesh", b"data", bytes(64))
    assert not verify(key, "lease", "mesh", b"data", b"short")
    assert not verify(b"short", "lease", "mesh", b"data", signature)


parts = st.tuples(st.text(max_size=6), st.text(max_size=6), st.binary(max_size=6))


@given(parts, parts)
def test_no_two_different_things_are_signed_as_the_same_bytes(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    assert (framed(*one) == framed(*other)) == (one == other)


@pytest.mark.parametrize("name", ["signing.key", "encryption.key"])
def test_a_key_that_others_can_read_is_refused(folder: Path, name: str) -> None:
    MachineIdentity.load_or_create(folder)
    (folder / name).chmod(0o640)
    with pytest.raises(InstarError) as refusal:
        MachineIdentity.load(folder)
    assert refusal.value.code == "exposed-file"
    assert f"chmod 600 {folder / name}" in refusal.value.hint


def test_a_folder_that_others_can_read_is_refused_before_keys_are_made_in_it(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(InstarError) as refusal:
        MachineIdentity.load_or_create(folder)
    assert refusal.value.code == "exposed-file"
    assert list(folder.iterdir()) == []


def rewrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["signing.key", "encryption.key"])
@pytest.mark.parametrize(
    "content",
    [b"", b"not base64!", base64.b64encode(b"short"), base64.b64encode(os.urandom(32)), None],
    ids=["empty", "not-base64", "short", "foreign", "missing"],
)
def test_a_damaged_missing_or_foreign_key_is_refused_naming_its_file(
    folder: Path, name: str, content: bytes | None
) -> None:
    MachineIdentity.load_or_create(folder)
    if content is None:
        (folder / name).unlink()
    else:
        rewrite(folder / name, content)
    with pytest.raises(InstarError) as refusal:
        MachineIdentity.load_or_create(folder)
    assert refusal.value.code == "bad-identity"
    assert str(folder / name) in refusal.value.message
    assert "backup" in refusal.value.hint


def test_keys_without_their_public_file_are_never_replaced(folder: Path) -> None:
    MachineIdentity.load_or_create(folder)
    (folder / "identity.json").unlink()
    key = (folder / "signing.key").read_bytes()
    with pytest.raises(InstarError) as refusal:
        MachineIdentity.load_or_create(folder)
    assert "identity.json" in refusal.value.message
    assert (folder / "signing.key").read_bytes() == key


def test_an_altered_public_file_is_refused(folder: Path) -> None:
    identity = MachineIdentity.load_or_create(folder)
    altered = msgspec.structs.replace(identity.public, machine_id="m_" + "0" * 32)
    rewrite(folder / "identity.json", msgspec.json.encode(altered))
    with pytest.raises(InstarError) as refusal:
        MachineIdentity.load(folder)
    assert "identity.json" in refusal.value.message


def test_no_identity_is_said_so(folder: Path) -> None:
    with pytest.raises(InstarError) as refusal:
        read_public(folder)
    assert refusal.value.code == "no-identity"


@pytest.mark.parametrize("field", ["machine_id", "signing_public", "encryption_public", "cross_signature"])
def test_a_public_identity_mixed_from_two_machines_is_refused(
    folder: Path, tmp_path: Path, field: str
) -> None:
    mine = MachineIdentity.load_or_create(folder).public
    theirs = MachineIdentity.load_or_create(tmp_path / "other").public
    mine.check()
    mixed = PublicIdentity(**{**msgspec.structs.asdict(mine), field: getattr(theirs, field)})
    with pytest.raises(InstarError) as refusal:
        mixed.check()
    assert refusal.value.code == "bad-identity"


def test_whoami_needs_no_cryptography(folder: Path) -> None:
    MachineIdentity.load_or_create(folder)
    code = (
        "import sys; from pathlib import Path; from instar_node.identity.keys import read_public;"
        "print(read_public(Path(sys.argv[1])).fingerprint);"
        "heavy = {'nacl', 'cryptography', 'mnemonic', 'spake2', 'pygit2', 'aiohttp'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    words_line, loaded = out.stdout.splitlines()
    assert words_line == read_public(folder).fingerprint
    assert loaded == "[]"


def test_fingerprints_are_five_words_and_mesh_names_two() -> None:
    assert len(fingerprint(b"k" * 32).split("-")) == 5
    assert len(mesh_name("mesh_00").split("-")) == 2
    assert fingerprint(b"k" * 32) != fingerprint(b"l" * 32)


def test_words_carry_the_leading_bits_of_the_hash() -> None:
    bits = f"{int.from_bytes(sha256(b'x').digest(), 'big'):0256b}"
    expected = [words()[int(bits[at : at + 11], 2)] for at in range(0, 55, 11)]
    assert words_for(b"x", 5).split("-") == expected
