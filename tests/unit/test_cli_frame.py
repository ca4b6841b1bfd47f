"""The command line itself: options in any place, exit codes, JSON errors, help, and what is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from instar_node.errors import InstarError
from instar_node.storage.home import Home
from instar_tui.commands.base import Command, Group
from instar_tui.exit_codes import ExitCode, exit_code_of
from instar_tui.program import COMMANDS, instar, instar_tui, run
from tests.unit.fake_api import FakeNodeApi
from tests.unit.served import Cli, home_at, serving

NAMES = [name for section in COMMANDS.values() for name in section]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_at(tmp_path)


@pytest.fixture
def cli(home: Home, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(home, capsys)


@pytest.fixture
def api(home: Home) -> Iterator[FakeNodeApi]:
    api = FakeNodeApi()
    with serving(api, home):
        yield api


def all_commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(instar)
    for name in NAMES:
        command = instar.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, Group):
            found += [(f"{name} {inner}", sub) for inner, sub in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_every_command_has_help_with_examples_and_the_common_options(
    name: str, command: click.Command, cli: Cli
) -> None:
    assert isinstance(command, Command | Group)
    ran = cli(*name.split(), "--help")
    assert ran.code == 0
    assert "Examples:" in ran.out
    for example in command.examples:
        assert f"  {example}\n" in ran.out
        assert name in example or name == "demo"
    assert "--home DIR" in ran.out
    assert "--json" in ran.out


@pytest.mark.parametrize("program", [instar, instar_tui], ids=["instar", "instar-tui"])
def test_the_list_of_commands_names_them_all(
    program: click.Group, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(program, ["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert any(line.startswith(f"  {name} ") for line in lines), name


@pytest.mark.parametrize(
    "arguments",
    [
        ["--home", "HOME", "--json", "config", "path"],
        ["config", "path", "--home", "HOME", "--json"],
        ["config", "--home", "HOME", "path", "--json"],
        ["--json", "config", "--home", "HOME", "path"],
    ],
)
def test_home_and_json_are_taken_before_and_after_the_command(
    arguments: list[str], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(instar, [str(home.path) if word == "HOME" else word for word in arguments]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(home.config)}


def test_the_home_comes_from_the_environment_unless_it_is_given(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAR_HOME", str(home.path))
    run(instar, ["config", "path"])
    assert capsys.readouterr().out == f"{home.config}\n"
    run(instar, ["config", "path", "--home", str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'config.toml'}\n"
    monkeypatch.chdir(tmp_path)
    run(instar, ["config", "path", "--home", "here"])
    assert capsys.readouterr().out == f"{tmp_path / 'here' / 'config.toml'}\n"


NEED_A_NODE = (
    "status", "lease", "pair", "wakeup", "handoff mini", "leave", "machines remove mini", "send work hi",
    "log work", "outbox", "outbox resolve o1 send", "placement work", "transfer work mini", "unpin work",
    "nickname desk", "status --watch", "secret list", "secret get TOKEN", "secret rm TOKEN",
)  # fmt: skip


@pytest.mark.parametrize("line", NEED_A_NODE)
def test_commands_that_need_a_node_exit_3_and_say_how_to_start_one(line: str, cli: Cli) -> None:
    ran = cli(*line.split(), "--json")
    assert ran.code == ExitCode.NO_NODE == 3
    assert ran.err.startswith(f"error: no node runs on {cli.home.path}\nhint: ")
    assert "instar-tui --daemon" in ran.err
    assert ran.json["error"]["code"] == "node-not-running"


def test_a_refusal_exits_1_with_message_hint_and_json(cli: Cli, api: FakeNodeApi) -> None:
    api.errors["pair"] = InstarError("not-awake", "mini is awake", "run it there", extra={"holder": "mini"})
    plain, structured = cli("pair"), cli("pair", "--json")
    assert (plain.code, plain.out, plain.err) == (1, "", "error: mini is awake\nhint: run it there\n")
    assert structured.json == {
        "error": {"code": "not-awake", "message": "mini is awake", "hint": "run it there", "holder": "mini"}
    }


def test_a_needed_confirmation_exits_4() -> None:
    assert exit_code_of(InstarError("needs-confirmation", "sure?")) == ExitCode.CONFIRM == 4


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sned work hi", "Did you mean send"),
        ("send work", "Missing argument 'TEXT'"),
        ("send work hi --loud", "--loud"),
        ("outbox resolve o1 eat", "eat"),
        ("transfer work", "MACHINE"),
        ("join http://a", "--code"),
        ("machines rename x", "rename"),
    ],
)
def test_wrong_usage_exits_2(line: str, says: str, cli: Cli) -> None:
    ran = cli(*line.split())
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert cli(*line.split(), "--json").json["error"]["code"] == "usage"


def test_text_of_others_cannot_steer_the_terminal(cli: Cli, api: FakeNodeApi) -> None:
    api.errors["lease"] = InstarError("x", "evil \x1b[2J\u202e", "\x07")
    assert cli("lease").err == "error: evil ␛[2J\\u202e\nhint: ␇\n"


# -- a fresh interpreter ----------------------------------------------------------------------------------


def loaded_after(*arguments: str, home: Path) -> set[str]:
    code = (
        "import sys\nfrom instar_tui.program import instar, run\n"
        f"run(instar, {list(arguments)!r})\n"
        "sys.stderr.write('MODULES ' + ' '.join(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "INSTAR_HOME": str(home)},
    )
    return set(ran.stderr.rpartition("MODULES ")[2].split())


def test_help_loads_nothing_but_click(tmp_path: Path) -> None:
    loaded = loaded_after("--help", home=tmp_path)
    assert not loaded & {"textual", "aiohttp", "pygit2", "rich", "msgspec", "asyncio", "http.client", "json"}


@pytest.mark.parametrize("line", ["whoami", "config get", "status", "send a b", "machines"])
def test_commands_load_no_screens_no_server_and_no_git(line: str, tmp_path: Path) -> None:
    loaded = loaded_after(*line.split(), home=tmp_path)
    assert not loaded & {"textual", "aiohttp", "pygit2", "rich.console"}


ALONE = """
import sys
import instar_tui.launch as launch
heavy = {"click", "textual", "ssl", "aiohttp", "pygit2", "nacl", "cryptography", "rich"}
launch.show = lambda *args, **kwargs: print(sorted(heavy & set(sys.modules))) or 0
sys.argv = ["instar-tui"]
from instar_tui.cli import main_tui
main_tui()
"""


def alone(home: Path) -> subprocess.CompletedProcess[str]:
    """``instar-tui`` without arguments, up to where the screens would begin."""
    command, env = [sys.executable, "-c", ALONE], {**os.environ, "INSTAR_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_the_control_centre_alone_loads_no_command_line_and_no_network(tmp_path: Path) -> None:
    ran = alone(tmp_path / "home")
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr
    assert (tmp_path / "home" / "config.toml").exists()


def test_the_control_centre_alone_says_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[lease]\nttl = 1\n")
    ran = alone(tmp_path)
    assert (ran.stdout, ran.returncode) == ("", 1)
    assert ran.stderr.startswith("error: ")
    assert "ttl_ms" in ran.stderr


def test_a_closed_pipe_is_no_traceback(home: Home, api: FakeNodeApi) -> None:
    command = f"{sys.executable} -m instar_tui machines --home {home.path} | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in ran.stderr
