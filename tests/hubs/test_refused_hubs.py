"""Hubs that will not do, over every transport and at every door: founding a mesh, moving one, joining one.

Each trouble has its own code and says the same wherever it is met, and nothing has changed when it is said.
Over ssh, where every command takes its time, only founding is tried unless ``--long`` is given: what git says
is read in one place.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pygit2
import pytest

from instar_node.api import types as t
from instar_node.coordination.git_lease_store import GitLeaseStore
from instar_node.coordination.hub import Hub, parse_hub
from instar_node.coordination.hub_troubles import HINTS
from instar_node.coordination.hubs import open_store
from instar_node.errors import InstarError
from instar_node.node import Node
from instar_node.storage.home import Home
from tests.hubs.conftest import GitServer
from tests.hubs.kinds import environment
from tests.hubs.servers import program
from tests.unit.lease_store_support import lease_record, won
from tests.unit.node_world import a_home, join, running

FRESH = ("registry.json", "mesh.json", "lease-state.json")


class Trouble(NamedTuple):
    """A hub that will do at ``good``, and one that will not at ``bad``.

    ``harm`` has the address of the good one lead to the bad one for a while: so a joiner meets it. ``env`` is
    that of the git processes which meet the bad one.
    """

    good: str
    bad: str
    code: str
    harm: Callable[[], AbstractContextManager[None]]
    env: dict[str, str]


class Hubs:
    """Repositories over one transport, by name."""

    def __init__(self, folder: Path, root: Path, base: str) -> None:
        self.folder = folder
        self.root = root
        self.base = base

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"

    def fresh(self) -> str:
        """A new repository; its name."""
        name = f"{secrets.token_hex(4)}.git"
        pygit2.init_repository(str(self.root / name), bare=True)
        return name

    async def foreign(self) -> str:
        """A repository with the lease of another mesh; its name."""
        name = self.fresh()
        home = Home(self.folder / "stranger")
        home.prepare()
        store = GitLeaseStore(Hub("path", str(self.root / name)), home)
        await store.create()
        await won(store, lease_record())
        return name

    def folder_of_music(self) -> str:
        name = f"{secrets.token_hex(4)}.git"
        (self.root / name).mkdir()
        (self.root / name / "song").touch()
        return name


@contextmanager
def leading_elsewhere(folder: Path, good: str, bad: str) -> Iterator[None]:
    """As when another server has the name: git is told that one address means the other."""
    config = folder / "elsewhere"
    config.write_text(f'[url "{bad}"]\n\tinsteadOf = {good}\n')
    with environment(GIT_CONFIG_GLOBAL=str(config)):
        yield


@contextmanager
def mounted_instead(good: Path, bad: Path) -> Iterator[None]:
    """As when another disk, or none, is mounted there."""
    aside = good.with_name("aside")
    good.rename(aside)
    if bad.exists():
        bad.rename(good)
    yield
    if good.exists():
        good.rename(bad)
    aside.rename(good)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Nobody may write there, not even the administrator, whom modes do not stop."""
    if os.geteuid() == 0:
        chattr = program("chattr", "e2fsprogs")
        made = subprocess.run([chattr, "-R", "+i", str(path)], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no immutable files here: {made.stderr.strip()}")
        undo = [chattr, "-R", "-i", str(path)]
    else:
        subprocess.run(["chmod", "-R", "a-w", str(path)], check=True)
        undo = ["chmod", "-R", "u+w", str(path)]
    try:
        yield
    finally:
        subprocess.run(undo, check=True)


async def refused_everywhere(folder: Path, trouble: Trouble) -> None:
    """Go to every door, and compare what is said and what is left."""
    home, lone = a_home(folder, "mini"), a_home(folder, "lone")
    async with running(a_home(folder, "desk"), hub=trouble.good) as desk:
        before = await desk.api.lease()
        with environment(**trouble.env):
            founding = await _refused_founding(lone, trouble.bad)
            with pytest.raises(InstarError) as moving:
                await desk.api.move_hub(t.HubRequest(trouble.bad))
        with environment(**trouble.env), trouble.harm(), pytest.raises(InstarError) as joining:
            await join(desk, home)
        after = await desk.api.lease()
        assert (after.epoch, after.hub.url, after.is_self) == (before.epoch, before.hub.url, True)
        assert len((await desk.api.machines()).machines) == 1
    errors = [founding, moving.value, joining.value]
    assert [error.code for error in errors] == [trouble.code] * 3
    assert founding.message == moving.value.message
    assert joining.value.message.replace(trouble.good, trouble.bad).endswith(founding.message)
    assert {error.hint.partition(". Then")[0] for error in errors} == {HINTS[trouble.code]}
    assert not [name for name in FRESH for at in (home, lone) if (at.machine / name).exists()]


async def refused_over_ssh(folder: Path, trouble: Trouble, long_run: bool) -> None:
    """At every door in a long run, else where a mesh is founded."""
    if long_run:
        await refused_everywhere(folder, trouble)
        return
    home = a_home(folder, "lone")
    with environment(**trouble.env):
        founding = await _refused_founding(home, trouble.bad)
    assert (founding.code, founding.hint) == (trouble.code, HINTS[trouble.code])
    assert not [name for name in FRESH if (home.machine / name).exists()]


async def _refused_founding(home: Home, url: str) -> InstarError:
    with pytest.raises(InstarError) as caught:
        async with running(home, hub=url):
            pass
    return caught.value


# -- on a disk -----------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Hubs:
    (tmp_path / "disk").mkdir()
    return Hubs(tmp_path, tmp_path / "disk", str(tmp_path / "disk"))


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("a folder of music", "hub-not-repository"),
        ("another mesh", "hub-of-another-mesh"),
        ("read-only", "hub-read-only"),
    ],
)
async def test_on_a_disk(disk: Hubs, tmp_path: Path, what: str, code: str) -> None:
    good = disk.fresh()
    if what == "read-only":
        bad = disk.fresh()
        with read_only(disk.root / bad):
            await refused_everywhere(
                tmp_path,
                Trouble(disk.url(good), disk.url(bad), code, lambda: read_only(disk.root / good), {}),
            )
        return
    bad = await disk.foreign() if what == "another mesh" else disk.folder_of_music()
    harm = lambda: mounted_instead(disk.root / good, disk.root / bad)  # noqa: E731
    await refused_everywhere(tmp_path, Trouble(disk.url(good), disk.url(bad), code, harm, {}))


async def test_on_a_disk_that_is_not_mounted(disk: Hubs, tmp_path: Path) -> None:
    hub = disk.url(disk.fresh())
    await _founding_is_refused(tmp_path, disk.url("mnt/hub.git"), "hub-missing")
    async with running(a_home(tmp_path, "desk"), hub=hub) as desk:
        with mounted_instead(Path(hub), disk.root / "nothing"):
            assert (await _refused_joining(desk, tmp_path)).code == "hub-missing"


async def test_an_empty_repository_in_place_of_the_hub_is_told_from_it_at_join(
    disk: Hubs, tmp_path: Path
) -> None:
    hub = disk.url(disk.fresh())
    async with running(a_home(tmp_path, "desk"), hub=hub) as desk:
        with mounted_instead(Path(hub), disk.root / disk.fresh()):
            assert (await _refused_joining(desk, tmp_path)).code == "hub-foreign"


async def _founding_is_refused(folder: Path, url: str, code: str) -> None:
    assert (await _refused_founding(a_home(folder, "lone"), url)).code == code


async def _refused_joining(host: Node, folder: Path) -> InstarError:
    with pytest.raises(InstarError) as caught:
        await join(host, a_home(folder, "mini"))
    return caught.value


@pytest.mark.skipif(os.geteuid() != 0, reason="only the administrator can become somebody else")
async def test_a_folder_that_is_closed_to_this_account_is_told_from_a_missing_one(
    disk: Hubs, tmp_path: Path
) -> None:
    hub, home = disk.url(disk.fresh()), Home(tmp_path / "home")
    disk.root.chmod(0o700)
    os.seteuid(65_534)
    try:
        store = open_store(parse_hub(hub, home), home)
        with pytest.raises(InstarError) as caught:
            await store.create()
    finally:
        os.seteuid(0)
    assert caught.value.code == "hub-credentials"


# -- over http -----------------------------------------------------------------------------------------


@pytest.fixture
def over_http(web: GitServer, tmp_path: Path) -> Hubs:
    return Hubs(tmp_path, web.root, f"{web.url}/git")


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("/git/none.git", "hub-missing"),
        ("/page.git", "hub-not-repository"),
        ("/locked/{fresh}", "hub-credentials"),
        ("/public/{fresh}", "hub-read-only"),
        ("/git/{foreign}", "hub-of-another-mesh"),
    ],
)
async def test_over_http(over_http: Hubs, web: GitServer, tmp_path: Path, what: str, code: str) -> None:
    name = over_http.fresh()
    names = {"fresh": over_http.fresh(), "foreign": await over_http.foreign()}
    _write_a_page(web.root / "page.git")
    good, bad = over_http.url(name), web.url + what.format(**names)
    elsewhere = web.url + what.format(**{**names, "fresh": name})
    harm = lambda: leading_elsewhere(tmp_path, good, elsewhere)  # noqa: E731
    await refused_everywhere(tmp_path, Trouble(good, bad, code, harm, {}))


def _write_a_page(folder: Path) -> None:
    (folder / "info").mkdir(parents=True, exist_ok=True)
    (folder / "info" / "refs").write_text("<html>\n<body>Welcome</body>\n</html>\n")


# -- over ssh ------------------------------------------------------------------------------------------

STRANGER = "ssh -F none -o IdentitiesOnly=yes -o UserKnownHostsFile={known}"


@pytest.fixture
def over_ssh(ssh: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hubs:
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh.ssh_command)
    return Hubs(tmp_path, ssh.root, ssh.url)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("nothing", "hub-not-repository"),  # a plain ssh server says the same of both
        ("a folder of music", "hub-not-repository"),
        ("another mesh", "hub-of-another-mesh"),
    ],
)
async def test_over_ssh(over_ssh: Hubs, tmp_path: Path, what: str, code: str, long_run: bool) -> None:
    good = over_ssh.url(over_ssh.fresh())
    names = {"nothing": "none.git", "a folder of music": over_ssh.folder_of_music()}
    bad = over_ssh.url(names.get(what) or await over_ssh.foreign())
    harm = lambda: leading_elsewhere(tmp_path, good, bad)  # noqa: E731
    await refused_over_ssh(tmp_path, Trouble(good, bad, code, harm, {}), long_run)


@pytest.mark.parametrize(("known", "code"), [(True, "hub-credentials"), (False, "hub-host-key")])
async def test_over_ssh_as_a_stranger(
    over_ssh: Hubs, ssh: GitServer, tmp_path: Path, known: bool, code: str, long_run: bool
) -> None:
    good, bad = (over_ssh.url(over_ssh.fresh()) for _ in range(2))
    stranger = STRANGER.format(known=ssh.root / "known" if known else "/dev/null")
    harm = lambda: leading_elsewhere(tmp_path, good, bad)  # noqa: E731
    trouble = Trouble(good, bad, code, harm, {"GIT_SSH_COMMAND": stranger})
    await refused_over_ssh(tmp_path, trouble, long_run)


async def test_over_ssh_where_the_account_may_not_write(
    over_ssh: Hubs, tmp_path: Path, long_run: bool
) -> None:
    good, bad = over_ssh.fresh(), over_ssh.fresh()
    with read_only(over_ssh.root / bad):
        harm = lambda: read_only(over_ssh.root / good)  # noqa: E731
        trouble = Trouble(over_ssh.url(good), over_ssh.url(bad), "hub-read-only", harm, {})
        await refused_over_ssh(tmp_path, trouble, long_run)
