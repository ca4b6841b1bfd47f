"""Which commits of the state are believed: the rules, as pure functions over parsed commits.

The git host is storage, not authority, and another machine may be hostile, so every reader checks every new
commit itself: a good signature, by a machine that is a member at that place in history and the holder of the
epoch that the commit names, following what came before. One commit that breaks a rule, and the whole line is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from instar_node.errors import InstarError
from instar_node.identity.chain import Folded, RegistryRecord, fold
from instar_node.identity.commit_signature import parse_signature
from instar_node.identity.keys import machine_id_of
from instar_node.identity.merging import judge
from instar_node.sync.commit import Commit


class Content(msgspec.Struct, frozen=True):
    """What the rules look at of a commit's files."""

    records: tuple[RegistryRecord, ...]
    """The machine registry in the tree, in order."""
    lease: bytes
    """The lease record in the tree."""


class Tenure(msgspec.Struct, frozen=True):
    """What a signed lease record says: who held which epoch."""

    epoch: int
    holder: str


class Standing(msgspec.Struct, frozen=True):
    """What holds at a verified commit; the next one is judged by it."""

    commit: str
    tree: str
    epoch: int
    signer: str
    time: int
    registry: Folded


Prove = Callable[[bytes, Folded], Tenure | None]
"""Reads a lease record and checks its holder's signature by a registry; ``None`` if it is no proof."""


@dataclass(frozen=True)
class Known:
    """What this reader knows apart from the repository.

    ``holder_of(epoch)`` is who surely held an epoch, ``None`` if this machine never heard.
    """

    registry: Folded
    newest_epoch: int
    holder_of: Callable[[int], str | None]
    prove: Prove


Step = tuple[Commit, Content]


def check_line(steps: Sequence[Step], base: Standing | None, head: Standing | None, known: Known) -> Standing:
    """Judge new commits, oldest first, that follow ``base``; returns what holds at the last.

    ``base`` is the newest commit shared with what was verified before, ``head`` the end of that. Raises
    ``InstarError`` whose ``code`` names the rule that was broken, with the commit in ``extra``.
    """
    _check_place(steps, base, head, known)
    standing = base
    for commit, content in steps:
        standing = check_commit(commit, content, standing, known)
    assert standing is not None
    _check_removed([commit for commit, _ in steps], standing, known)
    return standing


def check_commit(commit: Commit, content: Content, before: Standing | None, known: Known) -> Standing:
    """Judge one commit after a verified one. Raises as ``check_line`` does."""
    if commit.parents != (() if before is None else (before.commit,)):
        raise refused(commit, "not-in-line", "does not follow the verified history in one line")
    if commit.mesh_id != known.registry.mesh_id:
        raise refused(commit, "foreign-mesh", "does not name this mesh")
    signer = _check_signature(commit)
    registry = _check_registry(commit, content, before, known)
    member = registry.members.get(signer)
    if member is None or member.removed:
        raise refused(commit, "not-a-member", f"is signed by {signer}, which is no member there")
    if commit.committer.machine_id != signer:
        raise refused(commit, "wrong-committer", f"names {commit.committer.machine_id}, but {signer} signed")
    if commit.author.machine_id not in registry.members:
        raise refused(commit, "unknown-author", f"names {commit.author.machine_id}, which never was a member")
    epoch = _check_epoch(commit, content, signer, registry, before, known)
    return Standing(commit.oid, commit.tree, epoch, signer, commit.committer.time, registry)


def refused(commit: Commit, code: str, why: str) -> InstarError:
    """The error for a commit that breaks a rule."""
    return InstarError(code, f"commit {commit.oid[:12]} {why}", status=422, extra={"commit": commit.oid})


def _check_signature(commit: Commit) -> str:
    """The machine whose key signed."""
    if not commit.signature:
        raise refused(commit, "unsigned", "is not signed")
    try:
        signature = parse_signature(commit.signature)
    except InstarError as error:
        raise refused(commit, "bad-signature", f"is not signed well: {error.message}") from error
    if not signature.covers(commit.payload):
        raise refused(commit, "bad-signature", "was altered after it was signed")
    return machine_id_of(signature.public)


def _check_registry(commit: Commit, content: Content, before: Standing | None, known: Known) -> Folded:
    """The registry at this commit: the parent's, or one that rightly follows it."""
    if before is not None and content.records == before.registry.records:
        return before.registry
    if content.records == known.registry.records:
        return known.registry if before is None else _follows(commit, content, before, known)
    try:
        folded = fold(content.records)
    except InstarError as error:
        raise refused(commit, "forged-registry", f"carries a false registry: {error.message}") from error
    if folded.mesh_id != known.registry.mesh_id:
        raise refused(commit, "foreign-mesh", "carries the registry of another mesh")
    return folded if before is None else _follows(commit, content, before, known)


def _follows(commit: Commit, content: Content, before: Standing, known: Known) -> Folded:
    try:
        folded = judge(before.registry, content.records)
    except InstarError as error:
        raise refused(commit, "forged-registry", f"carries a false registry: {error.message}") from error
    if folded is None:
        raise refused(commit, "registry-rewound", "takes the machine registry back to an older state")
    return folded


def _check_epoch(
    commit: Commit, content: Content, signer: str, registry: Folded, before: Standing | None, known: Known
) -> int:
    epoch = commit.epoch
    if epoch is None:
        raise refused(commit, "no-epoch", "names no epoch")
    if before is not None:
        if epoch < before.epoch:
            raise refused(commit, "stale-epoch", f"is of epoch {epoch}, after one of epoch {before.epoch}")
        if epoch == before.epoch and signer != before.signer:
            raise refused(commit, "not-holder", f"is by a second machine in epoch {epoch}")
        if commit.committer.time < before.time:
            raise refused(commit, "backdated", "claims to be older than the commit before it")
    if epoch > known.newest_epoch:
        raise refused(commit, "epoch-ahead", f"is of epoch {epoch}, of which the lease says nothing yet")
    if known.holder_of(epoch) not in (None, signer):
        raise refused(commit, "not-holder", f"is by {signer}, which did not hold epoch {epoch}")
    if known.prove(content.lease, registry) != Tenure(epoch, signer):
        raise refused(commit, "not-holder", f"has no lease record by which {signer} held epoch {epoch}")
    return epoch


def _check_place(steps: Sequence[Step], base: Standing | None, head: Standing | None, known: Known) -> None:
    """Refuse a line that does not go on from what was verified, unless a later epoch had to leave it there.

    A holder that died may have had commits that never reached the next one, which then goes on without
    them. Only a line that the sure holder of a later epoch has made its own may part from ours.
    """
    if head is None or base == head:
        return
    if not steps:
        raise InstarError("rewound", "the repository was taken back to an older commit", status=422)
    first, tip = steps[0][0], steps[-1][0]
    if base is None:
        raise refused(first, "foreign-history", "begins another history than the verified one")
    epoch = tip.epoch or 0
    if epoch < head.epoch:
        raise refused(
            first, "outranked", f"parts from the verified history, in which epoch {head.epoch} began"
        )
    holder = known.holder_of(epoch)
    if epoch > head.epoch and holder is None:
        raise refused(tip, "epoch-ahead", f"is of epoch {epoch}, of which this machine has not heard yet")
    if epoch == head.epoch or holder != tip.committer.machine_id:
        raise refused(first, "forked", "parts from the verified history, and no later epoch explains it")


def _check_removed(commits: Sequence[Commit], tip: Standing, known: Known) -> None:
    """A removed machine's commits stand only where its removal comes after them in the same line."""
    for commit in commits:
        signer = commit.committer.machine_id
        if signer in known.registry.removed and signer not in tip.registry.removed:
            raise refused(commit, "removed-signer", f"is by {signer}, which was removed from the mesh")
