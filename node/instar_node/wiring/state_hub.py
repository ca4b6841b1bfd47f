"""The state's ref on a git hub: the same transports as the lease's register, another ref."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from instar_node.coordination.git_refs import in_thread
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import RefusedSwap, StoreUnavailable
from instar_node.sync.ports import HubRefusedError, HubUnavailableError, StateHub

if TYPE_CHECKING:
    import pygit2

    from instar_node.coordination.git_repository import LeaseRepository

IsWhole: TypeAlias = "Callable[[str, pygit2.Oid], bool]"
"""Whether an object (its kind and id) is there together with all that it names."""
Whole: TypeAlias = "Callable[[pygit2.Repository], IsWhole]"
STATE_REF = "refs/instar/state"
DISK_S = 10.0
COPY_S = 120.0
REMOTE_S = 60.0
"""Seconds that locks, copying a large state, and one exchange with a remote hub may take."""
MANY = 64
"""From so many objects on they are copied as one pack."""


def state_hub(hub: Hub, repository: Path) -> StateHub | None:
    """The hub's state ref, with ``repository`` for the objects; ``None`` where machines meet without one."""
    if hub.kind == "path":
        return DiskStateHub(Path(hub.url), repository)
    if hub.kind == "remote":
        return RemoteStateHub(hub, repository)
    return None


class StateHubs:
    """The state's ref on the hub that the lease lies in now."""

    def __init__(self, hub: Callable[[], Hub], repository: Path) -> None:
        self._hub = hub
        self._repository = repository
        self._made: tuple[Hub, StateHub | None] | None = None

    def __call__(self) -> StateHub | None:
        hub = self._hub()
        if self._made is None or self._made[0] != hub:
            self._made = (hub, state_hub(hub, self._repository))
        return self._made[1]


class DiskStateHub:
    """A bare repository on a disk that all machines see: objects are copied, the ref is swapped in place."""

    audit_s = 5.0
    push_pause_s = 0.0

    def __init__(self, hub: Path, repository: Path) -> None:
        # libgit2 is loaded with the first hub, not with this module.
        from instar_node.coordination.git_disk import DiskRefs
        from instar_node.coordination.git_repository import LeaseRepository

        self._hub, self._here = LeaseRepository(hub), LeaseRepository(repository)
        self._refs = DiskRefs(self._hub, absent_is_empty=False, within=DISK_S)

    async def tip(self, have: str | None) -> str | None:
        try:
            tip = await self._refs.tip(STATE_REF, have)
            if tip is not None:
                await in_thread(lambda: copy_objects(self._hub, self._here, tip, in_line_of(have)), COPY_S)
        except StoreUnavailable as error:
            raise HubUnavailableError(error.message) from error
        return tip

    async def push(self, expected: str | None, new: str) -> None:
        try:
            await in_thread(lambda: copy_objects(self._here, self._hub, new, present), COPY_S)
            await self._refs.swap(STATE_REF, expected, new)
        except RefusedSwap as error:
            raise HubRefusedError(str(error)) from error
        except StoreUnavailable as error:
            raise HubUnavailableError(error.message) from error


class RemoteStateHub:
    """Any git URL: the git program carries the objects, with the person's own settings and credentials."""

    audit_s = 60.0
    push_pause_s = 10.0  # hosts ask for no more than about six pushes a minute

    def __init__(self, hub: Hub, repository: Path) -> None:
        from instar_node.coordination.git_remote import RemoteRefs
        from instar_node.coordination.git_repository import LeaseRepository

        self._refs = RemoteRefs(hub.url, hub.shown, LeaseRepository(repository), REMOTE_S)

    async def tip(self, have: str | None) -> str | None:
        try:
            return await self._refs.tip(STATE_REF, have)
        except StoreUnavailable as error:
            raise HubUnavailableError(error.message) from error

    async def push(self, expected: str | None, new: str) -> None:
        try:
            await self._refs.swap(STATE_REF, expected, new)
        except RefusedSwap as error:
            raise HubRefusedError(str(error)) from error
        except StoreUnavailable as error:
            raise HubUnavailableError(error.message) from error


def copy_objects(source: LeaseRepository, target: LeaseRepository, tip: str, whole: Whole) -> None:
    """Copy a commit, its line and all they name to another repository, as far as they are there.

    ``whole`` says of what the target has that all it names is there, too. What is missing or damaged at the
    source is left out: it is whoever reads the copy that misses it. Every object is hashed anew on the way.
    Raises ``StoreUnavailable``.
    """
    with source.opened() as there, target.opened() as here:
        missing = list(_missing(there, here, tip, whole(here)))
        if len(missing) >= MANY:
            there.pack(target.path / "objects" / "pack", lambda pack: _fill(pack, missing))
            return
        for oid in reversed(missing):  # what is named comes before what names it
            kind, data = there.read(oid)
            here.write(kind, data)


def _fill(pack: pygit2.PackBuilder, oids: list[pygit2.Oid]) -> None:
    for oid in oids:
        pack.add(oid)


def present(here: pygit2.Repository) -> IsWhole:
    """In a repository that is written only by ``copy_objects``, whatever is there is whole."""
    return lambda kind, oid: oid in here.odb


def in_line_of(have: str | None) -> Whole:
    """Only the line of a verified commit is whole: a transfer through a tunnel brings the commits first, and
    may have been broken off before their files came."""

    def whole(here: pygit2.Repository) -> IsWhole:
        import pygit2

        newest = None if have is None else here[have].peel(pygit2.Commit)
        kept = cache(lambda: set() if newest is None else set(_trees_of(here, newest.tree_id)))

        def is_whole(kind: str, oid: pygit2.Oid) -> bool:
            if kind == "tree":
                return oid in kept()
            if kind != "commit" or newest is None or oid not in here.odb:
                return False
            try:
                return oid == newest.id or here.descendant_of(newest.id, oid)
            except pygit2.GitError:  # a hostile host calls it a commit
                return False

        return is_whole

    return whole


def _trees_of(here: pygit2.Repository, tree: pygit2.Oid) -> Iterator[pygit2.Oid]:
    yield tree
    for kind, oid in _named_by(here[tree]):
        if kind == "tree":
            yield from _trees_of(here, oid)


def _missing(
    there: pygit2.Repository, here: pygit2.Repository, tip: str, is_whole: IsWhole
) -> Iterator[pygit2.Oid]:
    """Objects of the line of ``tip`` that are there and not here, each before those that it names."""
    import pygit2

    pending, seen = [("commit", pygit2.Oid(hex=tip))], set[pygit2.Oid]()
    while pending:
        kind, oid = pending.pop()
        if oid in seen or is_whole(kind, oid):
            continue
        seen.add(oid)
        is_here = oid in here.odb
        if is_here and kind == "blob":
            continue
        try:
            found = (here if is_here else there).get(oid)
        except (ValueError, pygit2.GitError):  # it is there and damaged
            continue
        if found is None:
            continue
        if not is_here:
            yield oid
        pending += _named_by(found)


def _named_by(found: pygit2.Object) -> list[tuple[str, pygit2.Oid]]:
    """Kind and id of what an object names."""
    import pygit2

    if isinstance(found, pygit2.Commit):
        return [("tree", found.tree_id), *(("commit", parent) for parent in found.parent_ids)]
    if isinstance(found, pygit2.Tree):
        return [(entry.type_str, entry.id) for entry in found if entry.type_str != "commit"]
    return []
