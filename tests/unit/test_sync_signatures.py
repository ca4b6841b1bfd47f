"""Commit signatures: ours are good to git, git's are good to us, and both refuse the same ones."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar_node.errors import InstarError
from instar_node.identity.commit_signature import allowed_signer, parse_signature, sign_payload
from instar_node.identity.keys import MachineIdentity
from instar_node.sync.commit import parse_commit, signed_commit
from instar_node.sync.tree import EXECUTABLE, FOLDER, PLAIN, Entry, encode_tree, parse_tree
from tests.unit.sync_support import Author, git

needs_git = pytest.mark.skipif(
    shutil.which("git") is None or shutil.which("ssh-keygen") is None, reason="git and ssh-keygen are needed"
)


@pytest.fixture
def author(tmp_path: Path) -> Author:
    return Author(tmp_path)


def verify_commit(author: Author, oid: str, *identities: MachineIdentity) -> int:
    """What ``git verify-commit`` says, with exactly these machines allowed to sign."""
    allowed = author.folder / "allowed_signers"
    lines = [allowed_signer(i.machine_id, i.public.signing_public, "") for i in identities]
    allowed.write_text("\n".join(lines) + "\n")
    option = f"gpg.ssh.allowedSignersFile={allowed}"
    return git(author.repository.worktree, "-c", option, "verify-commit", oid).returncode


@needs_git
def test_git_takes_our_signatures_and_refuses_what_we_refuse(author: Author) -> None:
    good = author.commit(None, {"notes.md": b"hello\n"})
    assert parse_signature(good.signature).covers(good.payload)
    assert verify_commit(author, good.oid, author.desk) == 0
    assert verify_commit(author, good.oid, author.mini) != 0
    raw = author.repository.read(good.oid)[1]
    altered = author.repository.write("commit", raw.replace(b"changed something", b"changed anything!"))
    assert verify_commit(author, altered, author.desk) != 0
    commit = author.repository.commit(altered)
    assert not parse_signature(commit.signature).covers(commit.payload)
    assert git(author.repository.worktree, "fsck", "--strict").returncode == 0


@needs_git
def test_we_take_the_signatures_of_ssh_keygen(author: Author, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    work = author.repository.worktree
    (work / "notes.md").write_text("by hand\n")
    for option in (("user.name", "x"), ("user.email", "x@instar"), ("gpg.format", "ssh")):
        assert git(work, "config", *option).returncode == 0
    git(work, "config", "user.signingkey", str(key))
    assert git(work, "add", ".").returncode == 0
    made = git(work, "-c", "core.hooksPath=/dev/null", "commit", "-S", "-m", "by hand")
    assert made.returncode == 0, made.stderr
    oid = git(work, "rev-parse", "HEAD").stdout.strip()
    commit = parse_commit(author.repository.read(oid)[1].replace(b"+0100", b"+0000"))
    assert parse_signature(commit.signature).covers(commit.payload)


@needs_git
def test_a_signature_of_a_file_does_not_pass_for_one_of_a_commit(author: Author, tmp_path: Path) -> None:
    key, message = tmp_path / "key", tmp_path / "message"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    message.write_bytes(b"text")
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(key), str(message)], check=True)
    with pytest.raises(InstarError, match="not made for git"):
        parse_signature((tmp_path / "message.sig").read_text())


@given(st.binary(max_size=400))
def test_no_armored_bytes_crash_the_reader(data: bytes) -> None:
    import base64

    text = base64.b64encode(data).decode()
    for armored in (
        data.decode("latin-1"),
        f"-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n",
    ):
        with pytest.raises(InstarError):
            parse_signature(armored)


@given(st.binary(max_size=600))
def test_no_bytes_crash_the_readers_of_commits_and_trees(data: bytes) -> None:
    for reader in (parse_commit, parse_tree):
        with suppress(InstarError):  # anything else that is raised fails the test
            reader(data)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=8),
        st.sampled_from([PLAIN, EXECUTABLE, FOLDER]),
        max_size=8,
    )
)
def test_a_tree_is_read_as_it_was_written(names: dict[str, str]) -> None:
    entries = [Entry(name, mode, "12" * 20) for name, mode in names.items()]
    assert set(parse_tree(encode_tree(entries))) == set(entries)


def test_a_commit_is_read_as_it_was_written(author: Author) -> None:
    commit = author.commit(None, {"a/b/ü x.md": b"hello"}, subject="two\nlines")
    assert commit.subject == "two lines"
    assert (commit.epoch, commit.mesh_id) == (1, author.registry.mesh_id)
    assert commit.committer.machine_id == author.desk.machine_id
    armored = sign_payload(commit.payload, author.desk.public.signing_public, lambda blob: bytes(64))
    assert parse_commit(signed_commit(commit.payload, armored)).payload == commit.payload
