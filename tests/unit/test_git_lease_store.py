"""The register in git: its history, its room on the disk, and what is special to a disk."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pygit2
import pytest

from instar_node.coordination import git_disk, git_refs
from instar_node.coordination.git_lease_store import LEASE_REF, GitLeaseStore
from instar_node.coordination.git_refs import UNREADABLE
from instar_node.coordination.git_repository import LeaseRepository
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import StoreUnavailable, Unknown, Won
from instar_node.coordination.record import KnownRecord
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from tests.unit.lease_store_support import epochs, lease_record, renewed, swapped, taken, won

ROOT = Path(__file__).parents[2]
WRITER = "tests.unit.lease_store_support"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture(params=["embedded", "path", "remote"])
async def hub(request: pytest.FixtureRequest, home: Home, tmp_path: Path) -> Hub:
    """An empty hub; the remote one is pushed to by git, on a path for speed."""
    if request.param == "embedded":
        return Hub("embedded", str(home.hub))
    await GitLeaseStore(path_hub := Hub("path", str(tmp_path / "hub.git")), home).create()
    return path_hub if request.param == "path" else Hub("remote", path_hub.url)


@pytest.fixture
def store(hub: Hub, home: Home) -> GitLeaseStore:
    return GitLeaseStore(hub, home)


@pytest.fixture
async def path_hub(home: Home, tmp_path: Path) -> Hub:
    hub = Hub("path", str(tmp_path / "hub.git"))
    await GitLeaseStore(hub, home).create()
    return hub


def other_store(hub: Hub, tmp_path: Path) -> GitLeaseStore:
    """The same hub from another machine's home."""
    home = Home(tmp_path / "other")
    home.prepare()
    return GitLeaseStore(hub, home)


def loose_objects(hub: Hub) -> int:
    return sum(1 for path in (Path(hub.url) / "objects").rglob("*") if path.is_file())


# -- history and room ---------------------------------------------------------------------------------


async def test_renewals_replace_the_tip_and_changes_of_holder_append(store: GitLeaseStore, hub: Hub) -> None:
    first = await won(store, lease_record())
    first = await won(store, renewed(await won(store, renewed(first))))
    second = await won(store, taken(first))
    second = await won(store, renewed(second))
    third = await won(store, taken(second, "m-cyd"))
    assert epochs(Path(hub.url)) == [third.record, second.record, first.record]


async def test_git_shows_who_took_the_lease_and_when(store: GitLeaseStore, hub: Hub) -> None:
    known = await won(store, taken(await won(store, lease_record())))
    shown = subprocess.run(
        ["git", f"--git-dir={hub.url}", "log", "--format=%H %an %cn %at %s", LEASE_REF],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert shown[0] == f"{known.version} m-bea m-bea 1795453083 epoch 2, record 2: held by m-bea"
    assert len(shown) == 2


async def test_renewals_do_not_make_the_repository_grow(store: GitLeaseStore, hub: Hub, home: Home) -> None:
    known = await won(store, renewed(await won(store, lease_record())))
    local = hub if hub.kind != "remote" else Hub("path", str(home.path / "hub-objects.git"))
    before = loose_objects(local)
    for _ in range(5):
        known = await won(store, renewed(known))
        assert await store.read() == known
    assert loose_objects(local) == before


async def test_a_reader_of_a_remote_hub_follows_renewals_without_keeping_them(
    path_hub: Hub, home: Home, tmp_path: Path
) -> None:
    store, reader = GitLeaseStore(path_hub, home), other_store(Hub("remote", path_hub.url), tmp_path)
    known = await won(store, lease_record())
    counts = set()
    for _ in range(4):
        known = await won(store, renewed(known))
        assert await reader.read() == known
        counts.add(loose_objects(Hub("path", str(tmp_path / "other" / "hub-objects.git"))))
    assert len(counts) == 1


async def test_only_what_a_later_record_of_its_epoch_replaced_is_forgotten(path_hub: Hub, home: Home) -> None:
    store, repository = GitLeaseStore(path_hub, home), LeaseRepository(Path(path_hub.url))
    first = await won(GitLeaseStore(path_hub, home), lease_record())
    later = await store.prepare(renewed(first))
    next_epoch = await won(store, taken(first))
    repository.forget_renewed(later, by=first)
    repository.forget_renewed(first, by=next_epoch)
    assert repository.has(later.version)
    assert repository.has(first.version)
    repository.forget_renewed(first, by=later)
    assert not repository.has(first.version)


async def test_a_swap_is_won_even_when_what_it_replaced_cannot_be_deleted(
    path_hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    store = GitLeaseStore(path_hub, home)
    first = await won(store, lease_record())
    monkeypatch.setattr(Path, "unlink", refuse)
    assert (await won(store, renewed(first))).record.serial == 2


async def test_a_record_that_replaces_one_of_another_register_continues_this_ones_history(
    store: GitLeaseStore, hub: Hub
) -> None:
    known = await won(store, lease_record())
    opened = lease_record(epoch=2, serial=9, prev="c" * 40, holder="m-bea")
    outcome = await store.compare_and_swap(known.version, await store.prepare(opened))
    assert isinstance(outcome, Won)
    assert epochs(Path(hub.url)) == [opened, known.record]


@pytest.mark.parametrize("content", [None, b"{}", b"x" * 300_000], ids=["no file", "no record", "too large"])
async def test_a_tip_that_is_no_lease_record_is_not_taken_for_an_empty_register(
    store: GitLeaseStore, hub: Hub, content: bytes | None
) -> None:
    await won(store, lease_record())
    repository = pygit2.Repository(hub.url)
    tree = repository.TreeBuilder()
    if content is not None:
        tree.insert("lease.json", repository.create_blob(content), pygit2.enums.FileMode.BLOB)
    person = pygit2.Signature("someone", "s@example.org", 1, 0)
    foreign = repository.create_commit(None, person, person, "hello", tree.write(), [])
    repository.references.create(LEASE_REF, foreign, force=True)
    with pytest.raises(StoreUnavailable) as caught:
        await store.read()
    assert caught.value.code == "hub-foreign"


@pytest.mark.parametrize("kind", ["blob", "tag", "tree"])
async def test_a_ref_that_was_set_to_what_is_no_commit_is_foreign_and_may_be_replaced(
    store: GitLeaseStore, hub: Hub, kind: str
) -> None:
    known = await won(store, lease_record())
    repository = pygit2.Repository(hub.url)
    person = pygit2.Signature("someone", "s@example.org", 1, 0)
    planted = {
        "blob": lambda: repository.create_blob(b"x"),
        "tree": lambda: repository.TreeBuilder().write(),  # the empty one, which git never sends
        "tag": lambda: repository.create_tag("t", known.version, pygit2.enums.ObjectType.COMMIT, person, "m"),
    }[kind]()
    repository.references.create(LEASE_REF, planted, force=True)
    with pytest.raises(StoreUnavailable) as caught:
        await store.read()
    assert (caught.value.code, caught.value.found) == ("hub-foreign", str(planted))
    anew = await store.prepare(lease_record(epoch=2, serial=2, prev=known.version))
    assert isinstance(await store.compare_and_swap(caught.value.found, anew), Won)


async def test_a_ref_below_the_lease_is_told_as_what_stands_in_its_way(
    store: GitLeaseStore, hub: Hub
) -> None:
    known = await won(store, lease_record())
    references = pygit2.Repository(hub.url).references
    references.delete(LEASE_REF)
    references.create(f"{LEASE_REF}/mine", known.version)
    with pytest.raises(StoreUnavailable, match=f"lies in the place of {LEASE_REF}") as caught:
        await store.read()
    assert (caught.value.code, caught.value.found) == ("hub-blocked", None)
    assert LEASE_REF in caught.value.message.partition(" lies ")[0]
    references.delete(f"{LEASE_REF}/mine")
    assert await store.read() is None


# -- a repository on a disk ----------------------------------------------------------------------------


async def test_a_repository_made_here_is_durable_and_never_packs_by_itself(path_hub: Hub) -> None:
    config = pygit2.Repository(path_hub.url).config
    assert config["core.fsync"] == "all"
    assert config.get_bool("receive.autogc") is False
    assert config.get_int("gc.auto") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to another account")
async def test_a_shared_disk_may_show_another_account_as_the_owner(path_hub: Hub, home: Home) -> None:
    for path in (Path(path_hub.url), *Path(path_hub.url).rglob("*")):
        os.chown(path, 12_345, 12_345)
    await won(GitLeaseStore(path_hub, home), lease_record())


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", b"ref: refs/instar/nowhere\n", b"ref: refs/\xff\n", b"0" * 40 + b"\n", b"a" * 100_000],
    ids=["empty", "junk", "a ref that is nowhere", "no text", "no object", "large"],
)
async def test_a_garbled_ref_is_foreign_and_may_be_replaced(
    path_hub: Hub, home: Home, content: bytes
) -> None:
    store = GitLeaseStore(path_hub, home)
    known = await won(store, lease_record())
    (Path(path_hub.url) / LEASE_REF).write_bytes(content)
    with pytest.raises(StoreUnavailable) as caught:
        await store.read()
    assert (caught.value.code, caught.value.found) == ("hub-foreign", UNREADABLE)
    anew = await store.prepare(lease_record(epoch=2, serial=2, prev=known.version))
    assert isinstance(await store.compare_and_swap(known.version, anew), Unknown), "it is not what was there"
    assert isinstance(await store.compare_and_swap(UNREADABLE, anew), Won)
    assert await store.read() == KnownRecord(anew.record, anew.version)


async def test_a_folder_in_the_place_of_the_lease_is_named_unless_it_is_empty(
    path_hub: Hub, home: Home
) -> None:
    store = GitLeaseStore(path_hub, home)
    await won(store, lease_record())
    place = Path(path_hub.url) / LEASE_REF
    place.unlink()
    (place / "deep").mkdir(parents=True)
    assert await store.read() is None  # git itself passes over empty folders
    (place / "deep" / "note").write_text("hello")
    with pytest.raises(StoreUnavailable, match=str(place)) as caught:
        await store.read()
    assert caught.value.code == "hub-blocked"


async def test_a_damaged_object_is_an_unavailable_hub_and_no_crash(path_hub: Hub, home: Home) -> None:
    store = GitLeaseStore(path_hub, home)
    version = (await won(store, lease_record())).version
    damaged = Path(path_hub.url) / "objects" / version[:2] / version[2:]
    damaged.chmod(0o600)
    damaged.write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        await GitLeaseStore(path_hub, home).read()


async def test_a_disk_that_is_not_mounted_is_not_an_empty_register(home: Home, tmp_path: Path) -> None:
    store = GitLeaseStore(Hub("path", str(tmp_path / "mnt" / "hub.git")), home)
    with pytest.raises(StoreUnavailable, match="no repository") as caught:
        await store.read()
    assert caught.value.code == "hub-missing"
    with pytest.raises(InstarError, match="no folder") as refused:
        await store.create()
    assert (refused.value.code, "mount" in refused.value.hint) == ("hub-missing", True)


async def test_a_folder_that_is_no_repository_is_refused_by_name(home: Home, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song").touch()
    store = GitLeaseStore(Hub("path", str(tmp_path / "music")), home)
    with pytest.raises(StoreUnavailable, match="not a bare git repository"):
        await store.read()
    with pytest.raises(InstarError) as caught:
        await store.create()
    assert caught.value.code == "hub-not-repository"


async def test_a_read_only_disk_is_said_to_be_one(
    path_hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = GitLeaseStore(path_hub, home)
    candidate = await store.prepare(lease_record())
    real_open = os.open

    def refuse(path: object, *rest: int) -> int:
        if str(path).endswith("instar.lock"):
            raise OSError(30, "Read-only file system")
        return real_open(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(git_disk.os, "open", refuse)
    outcome = await store.compare_and_swap(None, candidate)
    assert isinstance(outcome, Unknown)
    assert "read but not written" in outcome.why


async def test_a_swap_that_cannot_get_the_lock_in_time_is_unknown(path_hub: Hub, home: Home) -> None:
    store = GitLeaseStore(path_hub, home, within=0.1)
    candidate = await store.prepare(lease_record())
    with (Path(path_hub.url) / "instar.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        outcome = await store.compare_and_swap(None, candidate)
    assert isinstance(outcome, Unknown)
    assert "locked" in outcome.why
    assert isinstance(await store.compare_and_swap(None, candidate), Won)


async def test_a_disk_that_hangs_is_unavailable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_refs, "_DISK_GRACE", 0.0)
    answers = threading.Event()
    try:
        with pytest.raises(StoreUnavailable, match="did not answer"):
            await git_refs.in_thread(answers.wait, 0.05)
    finally:
        answers.set()


async def test_a_lock_left_by_a_killed_process_is_removed(
    path_hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_disk, "STALE_AFTER", 0.1)
    store = GitLeaseStore(path_hub, home)
    known = await won(store, lease_record())
    (Path(path_hub.url) / f"{LEASE_REF}.lock").touch()
    assert isinstance(await swapped(store, taken(known)), Won)


async def test_a_lock_that_is_in_use_is_left_alone(path_hub: Hub, home: Home) -> None:
    store = GitLeaseStore(path_hub, home, within=0.2)
    known = await won(store, lease_record())
    lock = Path(path_hub.url) / f"{LEASE_REF}.lock"
    lock.touch()
    outcome = await swapped(store, taken(known))
    assert isinstance(outcome, Unknown)
    assert lock.exists()


async def test_a_swap_that_does_not_show_afterwards_is_not_won(
    path_hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = GitLeaseStore(path_hub, home)
    first = await won(store, lease_record())
    real = git_disk._locked_ref

    @contextmanager
    def passed_over(*arguments: Any) -> Iterator[tuple[pygit2.Repository, Any]]:
        with real(*arguments) as (repository, _):
            yield repository, mock.Mock()  # what this process sets goes nowhere

    monkeypatch.setattr(git_disk, "_locked_ref", passed_over)
    assert isinstance(await swapped(store, taken(first)), Unknown)


def test_pygit2_is_loaded_with_the_first_use_and_not_with_the_module() -> None:
    code = "import sys, instar_node.coordination.git_lease_store; sys.exit('pygit2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
