"""State objects through the tunnel: giving them, and fetching a line of commits with all they name."""

from __future__ import annotations

import zlib
from itertools import islice

import msgspec

from instar_node.contracts import Lane, Mesh, Rep
from instar_node.errors import InstarError
from instar_node.sync.commit import Commit, oid_of, parse_commit
from instar_node.sync.paths import MAX_FILE_BYTES
from instar_node.sync.repository import MAX_NEW_COMMITS, StateRepository
from instar_node.sync.wire import (
    MAX_ASKED,
    MAX_PAGE_BYTES,
    MAX_PAGE_COMMITS,
    AskCommits,
    AskObjects,
    Commits,
    Object,
    Objects,
)
from instar_node.sync.worker import Worker

PAGE_S = 30.0
"""Seconds one page may take."""
MAX_FETCH_BYTES = 4 << 30
"""Of one fetch, unpacked; more than any state has."""


class Transfer:
    """Both directions. Whoever is connected is a member and may read the whole state."""

    def __init__(self, mesh: Mesh, repository: StateRepository, worker: Worker) -> None:
        self._mesh = mesh
        self._repository = repository
        self._worker = worker

    def serve(self) -> None:
        """Begin to answer."""
        self._mesh.on_request(AskCommits, self._on_ask_commits)
        self._mesh.on_request(AskObjects, self._on_ask_objects)

    # -- fetching ---------------------------------------------------------------------------------------

    async def fetch(self, peer: str, tip: str) -> None:
        """Bring a commit, its line and all files of it here. Nothing of it is believed yet.

        Raises ``PeerError``, or ``InstarError("bad-answer")`` when the peer sends something else.
        """
        commits = await self._fetch_commits(peer, tip)
        await self.fetch_objects(peer, [commit.tree for commit in commits])

    async def fetch_objects(self, peer: str, roots: list[str]) -> None:
        """Bring trees and blobs here, with all that they name. Raises as ``fetch`` does."""
        complete: set[str] = set()
        fetched = 0
        while wanted := await self._worker.run(self._missing, roots, complete):
            reply = await self._ask(peer, AskObjects(tuple(wanted)), Objects)
            if not reply.objects:
                raise _bad_answer(peer, f"object {wanted[0][:12]} is not given")
            for oid, packed in zip(wanted, reply.objects, strict=False):
                fetched += packed.size
                await self._worker.run(self._store, peer, oid, packed)
            if fetched > MAX_FETCH_BYTES:
                raise _bad_answer(peer, "more is sent than any state has")

    async def _fetch_commits(self, peer: str, tip: str) -> list[Commit]:
        have = tuple(await self._worker.run(self._repository.milestones))
        found: list[Commit] = []
        wanted: str | None = tip
        while wanted is not None and not (wanted in have or await self._worker.run(self._is_whole, wanted)):
            page = await self._ask(peer, AskCommits(wanted, have), Commits)
            for raw in page.commits:
                commit = parse_commit(raw)
                if commit.oid != wanted:
                    raise _bad_answer(peer, "the commits are not in line")
                await self._worker.run(self._repository.write, "commit", raw)
                found.append(commit)
                wanted = commit.parents[0] if commit.parents else None
            if not page.more:
                break
            if not page.commits or len(found) > MAX_NEW_COMMITS:
                raise _bad_answer(peer, "the history has no end")
        return found

    def _is_whole(self, oid: str) -> bool:
        """Whether a commit is part of what was verified."""
        head = self._repository.head()
        return head is not None and self._repository.has_line(oid, head)

    def _missing(self, roots: list[str], complete: set[str]) -> list[str]:
        return list(islice(self._repository.missing(roots, complete), MAX_ASKED))

    def _store(self, peer: str, oid: str, packed: Object) -> None:
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(packed.packed, MAX_FILE_BYTES + 1)
        except zlib.error as error:
            raise _bad_answer(peer, f"object {oid[:12]} is damaged") from error
        if len(data) > MAX_FILE_BYTES or oid_of(packed.kind, data) != oid:
            raise _bad_answer(peer, f"object {oid[:12]} is another one")
        self._repository.write(packed.kind, data)

    async def _ask(self, peer: str, question: msgspec.Struct, reply: type[Rep]) -> Rep:
        return await self._mesh.request(peer, question, reply, within=PAGE_S, lane=Lane.BULK)

    # -- giving -----------------------------------------------------------------------------------------

    async def _on_ask_commits(self, peer: str, question: AskCommits) -> Commits:
        return await self._worker.run(self._commits, question)

    async def _on_ask_objects(self, peer: str, question: AskObjects) -> Objects:
        return await self._worker.run(self._objects, question)

    def _commits(self, question: AskCommits) -> Commits:
        found: list[bytes] = []
        size, current = 0, question.tip
        while True:
            raw = self._repository.raw_commit(current)
            found.append(raw)
            size += len(raw)
            parents = parse_commit(raw).parents
            if not parents or parents[0] in question.have:
                return Commits(tuple(found), more=False)
            if len(found) == MAX_PAGE_COMMITS or size > MAX_PAGE_BYTES:
                return Commits(tuple(found), more=True)
            current = parents[0]

    def _objects(self, question: AskObjects) -> Objects:
        found: list[Object] = []
        size = 0
        for oid in question.oids:
            if not self._repository.has(oid):
                break
            kind, data = self._repository.read(oid)
            size += len(data)
            if kind not in ("tree", "blob") or (found and size > MAX_PAGE_BYTES):
                break
            found.append(Object(kind, len(data), zlib.compress(data, 1)))
        return Objects(tuple(found))


def _bad_answer(peer: str, why: str) -> InstarError:
    return InstarError("bad-answer", f"{peer} sent a state that cannot be used: {why}", status=502)
