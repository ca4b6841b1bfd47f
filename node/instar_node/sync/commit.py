"""A state commit as bytes: built, parsed strictly, and read for what it claims. Pure.

Only the plainest commits exist here: a tree, at most one parent, author, committer and one SSH signature.
Whatever else git allows (merges, encodings, merge tags) nobody of the mesh writes, so it is refused.
"""

from __future__ import annotations

import re
from hashlib import sha1

import msgspec

from instar_node.errors import InstarError

EMAIL_HOST = "instar"
MESH, EPOCH = "Instar-Mesh", "Instar-Epoch"
MAX_RAW = 64 * 1024
"""Bytes of a commit; a longer one is refused before it is parsed."""

_HEX = r"[0-9a-f]{40}"
_PERSON = re.compile(r"(?P<name>[^<>\n]*) <(?P<email>[^<>\n ]+)> (?P<time>[0-9]{1,12}) \+0000")


class Person(msgspec.Struct, frozen=True):
    """Author or committer. The machine id is what counts; the name is for people."""

    name: str
    machine_id: str
    time: int
    """Unix seconds by the clock of whoever wrote it, never below the parent's."""

    def __str__(self) -> str:
        return f"{self.name} <{self.machine_id}@{EMAIL_HOST}> {self.time} +0000"


class Draft(msgspec.Struct, frozen=True):
    """What a commit says, before it is signed."""

    tree: str
    parent: str | None
    author: Person
    """The machine on which the change was made."""
    committer: Person
    """The machine that signs: the holder of ``epoch``."""
    subject: str
    mesh_id: str
    epoch: int

    def payload(self) -> bytes:
        """The bytes that are signed: the commit object without its signature."""
        parent = f"parent {self.parent}\n" if self.parent is not None else ""
        subject = " ".join(self.subject.split()) or "state"
        text = (
            f"tree {self.tree}\n{parent}author {self.author}\ncommitter {self.committer}\n\n"
            f"{subject}\n\n{MESH}: {self.mesh_id}\n{EPOCH}: {self.epoch}\n"
        )
        return text.encode()


class Commit(msgspec.Struct, frozen=True):
    """A parsed commit. Nothing it claims is believed yet."""

    oid: str
    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    message: str
    signature: str
    """Armored; empty for an unsigned commit."""
    payload: bytes

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]

    @property
    def mesh_id(self) -> str | None:
        """The mesh it claims to belong to."""
        return self._trailer(MESH)

    @property
    def epoch(self) -> int | None:
        """The epoch it claims to be of; ``None`` when it names none."""
        text = self._trailer(EPOCH)
        return int(text) if text is not None and re.fullmatch(r"[1-9][0-9]{0,17}", text) else None

    def _trailer(self, name: str) -> str | None:
        """The one trailer of this name in the last paragraph; ``None`` if there is none, or more than one."""
        last = self.message.rstrip("\n").rpartition("\n\n")[2]
        lines = (line.partition(": ") for line in last.split("\n"))
        values = [value for key, colon, value in lines if colon and key == name]
        return values[0] if len(values) == 1 else None


def signed_commit(payload: bytes, armored: str) -> bytes:
    """The commit object: the payload with the signature as its ``gpgsig`` header."""
    head, _, message = payload.partition(b"\n\n")
    folded = armored.rstrip("\n").replace("\n", "\n ")
    return head + f"\ngpgsig {folded}\n\n".encode() + message


def oid_of(kind: str, data: bytes) -> str:
    """The object id git gives to ``data`` as a ``kind`` (commit, tree, blob)."""
    return sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


_HEAD = re.compile(
    rf"tree (?P<tree>{_HEX})\n"
    rf"(?P<parents>(?:parent {_HEX}\n)*)"
    r"author (?P<author>[^\n]*)\n"
    r"committer (?P<committer>[^\n]*)"
    r"(?:\ngpgsig (?P<signature>[^\n]*(?:\n [^\n]*)*))?"
)


def parse_commit(raw: bytes) -> Commit:
    """Read a commit object strictly.

    Raises ``InstarError("foreign-commit")`` for one that nobody of a mesh writes.
    """
    oid = oid_of("commit", raw)
    if len(raw) > MAX_RAW:
        raise _foreign(oid, "is too large")
    try:
        head, blank, message = raw.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError as error:
        raise _foreign(oid, "is not UTF-8") from error
    match = _HEAD.fullmatch(head)
    if match is None or not blank:
        raise _foreign(oid, "has headers that no machine of a mesh writes")
    signature = match["signature"]
    cut = "" if signature is None else f"\ngpgsig {signature}"
    return Commit(
        oid=oid,
        tree=match["tree"],
        parents=tuple(re.findall(_HEX, match["parents"])),
        author=_person(oid, match["author"]),
        committer=_person(oid, match["committer"]),
        message=message,
        signature="" if signature is None else signature.replace("\n ", "\n") + "\n",
        payload=f"{head.removesuffix(cut)}\n\n{message}".encode(),
    )


def _person(oid: str, text: str) -> Person:
    match = _PERSON.fullmatch(text)
    machine_id, _, host = (match["email"] if match else "").partition("@")
    if match is None or host != EMAIL_HOST or not machine_id:
        raise _foreign(oid, f"is not by a machine of a mesh: {text[:100]}")
    return Person(match["name"], machine_id, int(match["time"]))


def _foreign(oid: str, why: str) -> InstarError:
    return InstarError("foreign-commit", f"commit {oid[:12]} {why}", status=422, extra={"commit": oid})
