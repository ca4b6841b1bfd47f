"""Editing ``config.toml``: comments stay, and nothing invalid is ever written."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar_node.config import Config, load_config
from instar_node.config_file import DEFAULT_TEXT, get_setting, parse_key, set_setting, write_default_config
from instar_node.errors import InstarError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_the_default_file_is_written_once(path: Path) -> None:
    assert write_default_config(path)
    assert path.read_text() == DEFAULT_TEXT
    path.write_text("[pool]\nenabled = false\n")
    assert not write_default_config(path)
    assert not load_config(path).pool.enabled


def test_setting_a_key_keeps_comments_and_other_keys(path: Path) -> None:
    path.write_text('# mine\n[lease] # times\nttl_ms = 7000 # why\n\n[node]\nnickname = "desk"\n')
    assert set_setting(path, ("lease", "ttl_ms"), "9000") == 9000
    assert path.read_text() == '# mine\n[lease] # times\nttl_ms = 9000 # why\n\n[node]\nnickname = "desk"\n'


def test_setting_a_key_of_the_default_file_keeps_all_of_its_text(path: Path) -> None:
    set_setting(path, ("agent", "kind"), "echo")
    assert load_config(path).agent.kind == "echo"
    for line in DEFAULT_TEXT.splitlines():
        assert line in path.read_text().splitlines()


def test_a_section_that_is_not_there_is_made(path: Path) -> None:
    path.write_text("")
    set_setting(path, ("channels", "webhook", "url"), "https://a.example")
    assert load_config(path).channels.webhook.url == "https://a.example"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        (("node", "nickname"), "0123", "0123"),
        (("node", "nickname"), "true", "true"),
        (("pool", "enabled"), "false", False),
        (("lease", "drift"), "0.02", 0.02),
        (("agent", "env_secrets"), '["A", "B"]', ["A", "B"]),
        (("ui", "keymap", "transfer"), "m", "m"),
    ],
)
def test_values_are_read_as_their_setting_needs_them(
    path: Path, key: tuple[str, ...], text: str, value: object
) -> None:
    assert list_or_same(set_setting(path, key, text)) == value
    assert list_or_same(get_setting(load_config(path), key)) == value


def list_or_same(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("key", "text"),
    [(("lease", "ttl_ms"), "soon"), (("lease", "ttl_ms"), "3000"), (("agent", "kind"), "robot")],
)
def test_an_invalid_value_is_refused_and_nothing_is_written(
    path: Path, key: tuple[str, ...], text: str
) -> None:
    before = '[node]\nnickname = "desk" # keep\n'
    path.write_text(before)
    with pytest.raises(InstarError) as caught:
        set_setting(path, key, text)
    assert caught.value.code == "bad-config"
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_already_wrong_is_not_edited(path: Path) -> None:
    path.write_text("[lease]\nttl = 1\n")
    with pytest.raises(InstarError, match=r"lease\.ttl:"):
        set_setting(path, ("pool", "enabled"), "false")


def test_the_mode_of_the_file_is_kept(path: Path) -> None:
    path.write_text("")
    path.chmod(0o640)
    set_setting(path, ("pool", "enabled"), "false")
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InstarError) as caught:
        parse_key("lease.ttl")
    assert caught.value.hint == "did you mean lease.ttl_ms?"


def test_a_section_is_no_setting_and_not_what_was_meant_either() -> None:
    with pytest.raises(InstarError) as caught:
        parse_key("lease")
    assert caught.value.hint == "`instar config get` lists every setting"


def test_get_shows_the_value_in_force_with_defaults() -> None:
    assert get_setting(Config(), parse_key("lease.ttl_ms")) == 6000
    assert get_setting(Config(), parse_key("ui.keymap.none")) is None


def test_bytes_that_are_no_text_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_default_config(path)
    before = path.read_bytes()
    with pytest.raises(InstarError) as caught:
        set_setting(path, ("ui", "theme"), "\udcff")
    assert (caught.value.code, caught.value.extra["field"]) == ("bad-input", "ui.theme")
    assert path.read_bytes() == before
