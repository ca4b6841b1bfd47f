"""The home folder: private, locked by one node, its files whole or old."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from instar_node.errors import InstarError
from instar_node.storage.atomic import read_json, write_atomic
from instar_node.storage.home import Home
from instar_node.storage.lock import HomeLock


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    name: str


def test_prepare_makes_private_folders(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    home.prepare()
    for folder in (home.path, home.machine, home.logs):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_default_home_is_the_systems_data_folder_and_is_not_made_by_asking() -> None:
    assert Home.default().path.name == "instar"


@pytest.mark.parametrize("exposed", ["machine", "machine/signing.key", "api.token"])
def test_prepare_refuses_what_others_can_read_and_names_the_command(tmp_path: Path, exposed: str) -> None:
    home = Home(tmp_path)
    home.prepare()
    path = tmp_path / exposed
    if not path.exists():
        path.write_text("secret")
    path.chmod(0o755)
    with pytest.raises(InstarError) as refusal:
        home.prepare()
    assert refusal.value.code == "exposed-file"
    assert f"chmod {'700' if path.is_dir() else '600'} {path}" in refusal.value.hint


def test_prepare_on_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InstarError) as refusal:
        Home(tmp_path / "file").prepare()
    assert refusal.value.code == "home-unusable"


HOLD = """
import sys, time
from pathlib import Path
from instar_node.storage.home import Home
from instar_node.storage.lock import HomeLock
HomeLock(Home(Path(sys.argv[1]))).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_node_is_refused_naming_the_first_until_the_first_is_killed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(InstarError) as refusal:
        HomeLock(home).acquire()
    assert refusal.value.code == "already-running"
    assert f"pid {first.pid}" in refusal.value.message
    first.send_signal(signal.SIGKILL)
    first.wait()
    with HomeLock(home):
        assert home.lock.read_text() == f"{os.getpid()}\n"


def test_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with HomeLock(Home(tmp_path)):
            pass


def test_atomic_write_replaces_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InstarError) as refusal:
        write_atomic(path, b"new")
    assert refusal.value.code == "disk-full"
    assert str(path) in refusal.value.message
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_into_a_missing_folder_is_an_instar_error(tmp_path: Path) -> None:
    with pytest.raises(InstarError) as refusal:
        write_atomic(tmp_path / "missing" / "file", b"x")
    assert refusal.value.code == "write-failed"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "file-missing"),
        (b"{", "file-damaged"),
        (b'{"name": 1}', "file-damaged"),
        (b'{"name": "a", "more": 1}', "file-damaged"),
        (b'{"name": "\xff"}', "file-damaged"),
    ],
)
def test_reading_json_is_strict_and_names_the_file(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "thing.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InstarError) as refusal:
        read_json(path, Thing, "the way out")
    assert refusal.value.code == code
    assert str(path) in refusal.value.message
    assert refusal.value.hint == "the way out"


def test_reading_json_decodes(tmp_path: Path) -> None:
    (tmp_path / "thing.json").write_bytes(b'{"name": "a"}')
    assert read_json(tmp_path / "thing.json", Thing) == Thing("a")
