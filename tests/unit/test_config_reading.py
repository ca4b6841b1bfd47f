"""``config.toml`` is read strictly, and refusals say where the mistake is and how to mend it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar_node.config import Config, known_keys, line_of, load_config, parse_config
from instar_node.config_file import DEFAULT_TEXT
from instar_node.errors import InstarError

PATH = Path("config.toml")


def refused(text: str) -> InstarError:
    with pytest.raises(InstarError) as caught:
        parse_config(text, PATH)
    assert caught.value.code == "bad-config"
    return caught.value


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "config.toml") == Config()


def test_a_full_file_is_read() -> None:
    config = parse_config(
        '[node]\nnickname = "desk"\nurls = ["https://a.example"]\n'
        "[lease]\nttl_ms = 900\nround_ms = 300\nbench_ttl_ms = 9000\ndrift = 0.02\n"
        '[agent]\nkind = "command"\ncommand = ["cat", "-"]\ntimeout_s = 5\n'
        '[channels.webhook]\nurl = "https://b.example"\nidempotent = false\nundecided = "resend"\n'
        '[ui]\nkeymap = { transfer = "m" }\n',
        PATH,
    )
    assert config.node.nickname == "desk"
    assert config.lease.ttl_ms == 900
    assert config.agent.command == ("cat", "-")
    assert config.agent.timeout_s == 5.0
    assert config.channels.webhook.undecided == "resend"
    assert config.ui.keymap == {"transfer": "m"}


def test_a_mistyped_key_is_refused_with_line_and_the_nearest_key() -> None:
    error = refused('[node]\nnickname = "a"\n\n[lease]\nround_ms = 2000\nttl = 9000\n')
    assert error.message == "config.toml:6: lease.ttl: there is no such setting"
    assert error.hint == "did you mean lease.ttl_ms?"
    assert error.extra == {"file": "config.toml", "key": "lease.ttl", "line": 6}


def test_a_mistyped_section_is_refused_with_the_nearest_section() -> None:
    error = refused('[agnet]\nkind = "echo"\n')
    assert error.message == "config.toml:1: agnet: there is no such setting"
    assert error.hint == "did you mean agent?"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ('[lease]\nttl_ms = "6000"\n', "config.toml:2: lease.ttl_ms", "Expected int, got str"),
        ("lease.ttl_ms = 99\n", "config.toml:1: lease.ttl_ms", ">= 100"),
        ("[lease]\n\ndrift = 0.5\n", "config.toml:3: lease.drift", "<= 0.2"),
        ("[lease]\n\ndrift = 0.0001\n", "config.toml:3: lease.drift", ">= 0.001"),
        ('[agent]\nkind = "robot"\n', "config.toml:2: agent.kind", "robot"),
        ('[agent]\nkind = "command"\ncommand = ["a", 7]\n', "config.toml:3: agent.command", "got int"),
        ("[channels.webhook]\nidempotent = 1\n", "config.toml:2: channels.webhook.idempotent", "got int"),
        ("[ui]\nkeymap = { a = 1 }\n", "config.toml:2: ui.keymap", "got int"),
        ("pool = 3\n", "config.toml:1: pool", "got int"),
    ],
)
def test_a_bad_value_is_refused_where_it_stands(text: str, place: str, says: str) -> None:
    error = refused(text)
    assert error.message.startswith(f"{place}: ")
    assert says in error.message


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("[lease]\nttl_ms = 5999\n", "config.toml:1: lease.round_ms", "round_ms to at most 1999"),
        ("[lease]\nround_ms = 2001\n", "config.toml:2: lease.round_ms", "ttl_ms to at least 6003"),
        ("[lease]\nbench_ttl_ms = 59999\n", "config.toml:2: lease.bench_ttl_ms", "at least 60000"),
        ('[agent]\nkind = "command"\n', "config.toml:1: agent.command", "such as command ="),
        ('[node]\nlisten = "localhost"\n', "config.toml:2: node.listen", "127.0.0.1:7707"),
        ('[node]\nlisten = "a:70000"\n', "config.toml:2: node.listen", "127.0.0.1:7707"),
        (
            '[channels.webhook]\nundecided = "resend"\n',
            "config.toml:2: channels.webhook.undecided",
            "idempotent",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(text: str, place: str, hint: str) -> None:
    error = refused(text)
    assert error.message.startswith(f"{place}: ")
    assert hint in error.hint


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:7707", "[::1]:7707", "desk.local:65535"])
def test_addresses_that_can_be_listened_on_are_taken(listen: str) -> None:
    assert parse_config(f'[node]\nlisten = "{listen}"\n', PATH).node.listen == listen


@pytest.mark.parametrize("text", ["[lease\n", "ttl_ms = \n", "[node]\nnickname = desk\n"])
def test_what_is_not_toml_is_refused_with_its_line(text: str) -> None:
    assert "line" in refused(text).message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InstarError, match="cannot be read"):
        load_config(path)


def test_the_line_of_a_key_is_found_in_sections_and_dotted_keys() -> None:
    text = "node.nickname = 'a'\n[channels.webhook]\nurl = ''\n[lease]\n"
    assert line_of(text, ("node", "nickname")) == 1
    assert line_of(text, ("channels", "webhook", "url")) == 3
    assert line_of(text, ("channels", "webhook", "secret")) == 2
    assert line_of(text, ("lease", "ttl_ms")) == 4
    assert line_of(text, ("pool", "enabled")) is None


def test_the_default_file_shows_every_setting_with_its_default() -> None:
    assert parse_config(DEFAULT_TEXT, PATH) == Config()
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line else line for line in DEFAULT_TEXT.splitlines()[3:]
    )
    shown: Any = tomllib.loads(uncommented)
    assert msgspec.convert(shown, Config) == Config()
    for key in known_keys():
        value = shown
        for part in key:
            assert part in value, key
            value = value[part]
