"""A hub as a person writes it."""

from __future__ import annotations

from pathlib import Path

import pygit2
import pytest

from instar_node.coordination.hub import Hub, parse_hub
from instar_node.errors import InstarError
from instar_node.storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.parametrize("spelling", ["", "  ", "{hub}", "file://{hub}", "{home}/../home/hub.git"])
def test_nothing_or_the_homes_own_repository_is_the_embedded_hub(home: Home, spelling: str) -> None:
    url = spelling.format(hub=home.hub, home=home.path)
    assert parse_hub(url, home) == Hub("embedded", str(home.hub))


@pytest.mark.parametrize("spelling", ["{path}", "file://{path}", "file://localhost{path}"])
def test_a_path_is_a_path_hub_whether_its_disk_is_there_or_not(
    home: Home, tmp_path: Path, spelling: str
) -> None:
    path = tmp_path / "shared" / "hub.git"
    assert parse_hub(spelling.format(path=path), home) == Hub("path", str(path))
    pygit2.init_repository(str(path), bare=True)
    assert parse_hub(spelling.format(path=path), home) == Hub("path", str(path))


def test_tilde_and_escapes_are_resolved(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_hub("~/hub.git", home).url == f"{tmp_path}/hub.git"
    assert parse_hub(f"file://{tmp_path}/my%20hub.git", home).url == f"{tmp_path}/my hub.git"


@pytest.mark.parametrize(
    "url",
    [
        "git@example.org:me/hub.git",
        "git@example.org:/srv/hub.git",
        "nas:hubs/hub.git",
        "ssh://me@nas:2222/srv/hub.git",
        "https://example.org/me/hub.git",
    ],
)
def test_git_urls_are_remote_hubs(home: Home, url: str) -> None:
    assert parse_hub(url, home) == Hub("remote", url)


@pytest.mark.parametrize(
    "url",
    [
        "github",
        "my hub",
        "--upload-pack=evil",
        "ext::sh -c evil",
        "ftp://example.org/hub.git",
        "https://",
        "https://example.org/a b",
        "https://[::1",
        "etcd://[::1",
        "file://[::1",
        "file://nas/hub.git",
        "a\nb",
    ],
)
def test_nonsense_is_refused_with_examples(home: Home, url: str) -> None:
    with pytest.raises(InstarError) as caught:
        parse_hub(url, home)
    assert caught.value.code == "bad-hub"
    assert "git@example.org" in caught.value.hint


@pytest.mark.parametrize(
    ("folder", "service"),
    [
        ("Dropbox", "Dropbox"),
        ("OneDrive - Work", "OneDrive"),
        ("Google Drive", "Google Drive"),
        ("Mobile Documents", "iCloud Drive"),
    ],
)
def test_a_synchronised_folder_is_refused(home: Home, tmp_path: Path, folder: str, service: str) -> None:
    with pytest.raises(InstarError) as caught:
        parse_hub(str(tmp_path / folder / "sub" / "hub.git"), home)
    assert caught.value.code == "hub-synced"
    assert service in caught.value.message


def test_a_syncthing_folder_is_known_by_its_marker(home: Home, tmp_path: Path) -> None:
    (tmp_path / "notes" / ".stfolder").mkdir(parents=True)
    with pytest.raises(InstarError, match="Syncthing"):
        parse_hub(str(tmp_path / "notes" / "hub.git"), home)


def test_a_folder_with_other_things_and_a_work_tree_are_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song").touch()
    pygit2.init_repository(str(tmp_path / "project"))
    for name, words in (("music", "not a bare git repository"), ("project", "work tree")):
        with pytest.raises(InstarError, match=words) as caught:
            parse_hub(str(tmp_path / name), home)
        assert caught.value.code == "hub-not-repository"


def test_passwords_are_not_shown() -> None:
    assert Hub("remote", "https://me:secret@example.org/h.git").shown == "https://me:…@example.org/h.git"
