"""The register behind an ssh server: answers that get lost, refusals, and a server that is not atomic."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from instar_node.coordination.git_lease_store import GitLeaseStore
from instar_node.coordination.git_remote import explain_failure
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import Lost, StoreUnavailable, Unknown, Won
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from tests.unit.lease_store_support import fake_ssh, lease_record, swapped, taken, won

SERVE = 'eval "$command"'


class Server:
    """An "ssh server" that is a script; what it does can be changed between two commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "hub.git"
        self.hub = Hub("remote", f"ssh://nas{self.repository}")
        self.answer(SERVE)

    def answer(self, body: str) -> None:
        """Run this shell text for every connection; ``$command`` is what git wants run."""
        fake_ssh(self.folder, body)

    def answer_pushes(self, body: str) -> None:
        """As ``answer``, but reads are served."""
        self.answer(f'case "$command" in git-receive-pack*) {body};; *) {SERVE};; esac')

    def hook(self, name: str, body: str) -> Path:
        """Have git on the server run this shell text."""
        path = self.repository / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
async def server(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(tmp_path)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(tmp_path / "ssh"))
    await GitLeaseStore(Hub("path", str(server.repository)), home).create()
    return server


async def test_an_ssh_hub_is_read_swapped_and_probed_by_git(server: Server, home: Home) -> None:
    store = GitLeaseStore(server.hub, home)
    await store.create()
    first = await won(store, lease_record())
    second = await won(store, taken(first))
    await store.probe()
    assert await store.read() == second
    assert await swapped(store, taken(first)) == Lost(second)


async def test_a_push_whose_reply_is_lost_is_unknown_and_is_won_when_repeated(
    server: Server, home: Home
) -> None:
    store = GitLeaseStore(server.hub, home)
    first = await won(store, lease_record())
    candidate = await store.prepare(taken(first))
    hook = server.hook("reference-transaction", '[ "$1" = committed ] && kill -9 $PPID; exit 0')
    assert isinstance(await store.compare_and_swap(first.version, candidate), Unknown)
    hook.unlink()
    known = await store.read()
    assert known is not None
    assert known.version == candidate.version
    assert await store.compare_and_swap(first.version, candidate) == Won(known)


async def test_a_lost_reply_and_a_successor_is_lost_to_the_successor(
    server: Server, home: Home, tmp_path: Path
) -> None:
    store = GitLeaseStore(server.hub, home)
    first = await won(store, lease_record())
    candidate = await store.prepare(taken(first))
    mine = await won(store, candidate.record)
    successor = await won(store, taken(mine, "m-cyd"))
    assert await store.compare_and_swap(first.version, candidate) == Lost(successor)


async def test_a_hub_that_never_answers_is_given_up_in_time_with_all_that_git_started(
    server: Server, home: Home
) -> None:
    store = GitLeaseStore(server.hub, home)
    candidate = await store.prepare(lease_record())
    hanging = GitLeaseStore(server.hub, home, within=0.4)
    server.answer(f"echo $$ >>{server.folder}/pids; exec sleep 600")
    outcome = await hanging.compare_and_swap(None, candidate)
    assert isinstance(outcome, Unknown)
    assert "0.4 s" in outcome.why
    with pytest.raises(StoreUnavailable, match="did not answer"):
        await hanging.read()
    pids = [int(pid) for pid in (server.folder / "pids").read_text().split()]
    assert len(pids) == 2
    await gone(pids)


async def test_a_cancelled_call_takes_its_git_process_along(server: Server, home: Home) -> None:
    pid_file = server.folder / "pid"
    server.answer(f"echo $$ >{pid_file}; exec sleep 600")
    reading = asyncio.create_task(GitLeaseStore(server.hub, home).read())
    pid = await written_number(pid_file)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await gone([pid])


async def written_number(path: Path) -> int:
    """The number a process writes into a file once it has started."""
    async with asyncio.timeout(20):
        while not (path.exists() and path.read_text().endswith("\n")):
            await asyncio.sleep(0.005)
    return int(path.read_text())


async def gone(pids: list[int]) -> None:
    """Return when none of the processes lives any more; fails after two seconds."""
    async with asyncio.timeout(2):
        while any(is_running(pid) for pid in pids):
            await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether the process lives; one that was killed and is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_server_that_lets_two_writers_win_is_refused(server: Server, home: Home) -> None:
    # Every push works on a copy of its own, then overwrites the hub. One of two is slow to connect, so that
    # they only meet if the probe makes them.
    server.answer_pushes(
        f"mkdir {server.folder}/first 2>/dev/null || {{ rmdir {server.folder}/first; sleep 0.3; }}; "
        f"copy=$(mktemp -d {server.folder}/copy.XXXXXX); cp -R {server.repository}/. $copy; "
        f"git-receive-pack $copy; code=$?; cp -R $copy/. {server.repository}; exit $code"
    )
    with pytest.raises(InstarError, match="each of them had won") as caught:
        await GitLeaseStore(server.hub, home).probe()
    assert caught.value.code == "hub-not-atomic"


async def test_a_server_that_refuses_our_refs_is_told_from_one_that_is_not_atomic(
    server: Server, home: Home
) -> None:
    server.hook("update", "exit 1")
    store = GitLeaseStore(server.hub, home)
    with pytest.raises(InstarError) as caught:
        await store.probe()
    assert caught.value.code == "hub-refuses"
    assert "hook declined" in caught.value.message
    outcome = await swapped(store, lease_record())
    assert isinstance(outcome, Unknown)
    assert "hook declined" in outcome.why


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ("git@host: Permission denied (publickey).", "hub-credentials", "credentials"),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", "hub-credentials", ""),
        ("remote: Invalid username or token.\nfatal: Authentication failed", "hub-credentials", ""),
        ("Host key verification failed.", "hub-host-key", "host key"),
        ("ERROR: Permission to me/hub.git denied to you.", "hub-read-only", "not written"),
        ("fatal: unable to access 'x': The requested URL returned error: 403", "hub-read-only", ""),
        ("ERROR: Repository not found.", "hub-missing", "no repository"),
        ("fatal: '/srv/x' does not appear to be a git repository", "hub-not-repository", ""),
        ("ssh: Could not resolve hostname nas: Name or service not known", "hub-unreachable", "resolve"),
    ],
)
async def test_what_git_says_is_passed_on_as_what_to_do(
    server: Server, home: Home, said: str, code: str, words: str
) -> None:
    (server.folder / "said").write_text(said + "\n")
    server.answer(f"cat {server.folder}/said >&2; exit 128")
    with pytest.raises(StoreUnavailable) as caught:
        await GitLeaseStore(server.hub, home).read()
    assert caught.value.code == code
    assert words in caught.value.message
    assert server.hub.url in caught.value.message
    with pytest.raises(InstarError) as refused:
        await GitLeaseStore(server.hub, home).create()
    assert refused.value.code == code


def test_git_without_a_word_is_explained_too() -> None:
    assert "no reason" in explain_failure("", "nas").message


async def test_passwords_stay_out_of_what_is_said(home: Home) -> None:
    store = GitLeaseStore(Hub("remote", "http://me:hunter2@127.0.0.1:9/h.git"), home)
    with pytest.raises(StoreUnavailable) as caught:
        await store.read()
    assert "hunter2" not in caught.value.message


async def test_without_git_a_remote_hub_says_that_it_is_missing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StoreUnavailable) as caught:
        await GitLeaseStore(Hub("remote", "ssh://nas/hub.git"), home).read()
    assert caught.value.code == "git-missing"
