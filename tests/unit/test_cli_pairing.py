"""``pair`` tells the code, every wrong guess as it happens, and the end; ``join`` needs no node."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from instar_node.api import types as t
from instar_node.storage.home import Home
from instar_tui.commands import pairing
from tests.unit.fake_api import MINI, FakeNodeApi, a_pairing
from tests.unit.served import Cli, home_at, serving

SAS = t.Sas("123456", ["🐟", "🌲"], ["fish", "tree"])
JOINER = {"machine_id": MINI, "nickname": "mini", "fingerprint": "one two three four five"}
JOINED = a_pairing("joined", joiner=JOINER, sas=SAS)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_at(tmp_path)


@pytest.fixture
def cli(home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr(pairing, "LOOK_EVERY_S", 0)
    return Cli(home, capsys)


@pytest.fixture
def api(home: Home) -> Iterator[FakeNodeApi]:
    api = FakeNodeApi()
    with serving(api, home):
        yield api


def test_the_code_is_printed_and_the_joiner_welcomed(cli: Cli, api: FakeNodeApi) -> None:
    api.pairings = [a_pairing(), a_pairing(), JOINED]
    ran = cli("pair")
    assert ran.code == 0
    assert "ABLE-BAKER-1234" in ran.out
    assert "instar join http://127.0.0.1:7707 --code ABLE-BAKER-1234" in ran.out
    assert "119 s, 3 attempts" in ran.out
    assert "mini" in ran.out
    assert "one two three four five" in ran.out
    assert "123 456  🐟 🌲  (fish, tree)" in ran.out


def test_each_wrong_guess_is_told_as_it_happens(cli: Cli, api: FakeNodeApi) -> None:
    wrong = a_pairing(attempts_left=2, last_refusal="wrong code")
    api.pairings = [wrong, wrong, a_pairing("locked", attempts_left=0, last_refusal="wrong code")]
    ran = cli("pair")
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "wrong guess (wrong code): 2 of 3 attempts left",
        "wrong guess (wrong code): 0 of 3 attempts left",
        "error: the code is void: every attempt was a wrong guess",
        "hint: instar pair",
    ]


@pytest.mark.parametrize(
    ("state", "says"), [("expired", "has expired"), ("cancelled", "was cancelled"), ("none", "is over")]
)
def test_a_code_that_comes_to_nothing_exits_1(state: str, says: str, cli: Cli, api: FakeNodeApi) -> None:
    api.pairings = [a_pairing(), a_pairing(state)]
    ran = cli("pair")
    assert ran.code == 1
    assert says in ran.err


def test_a_code_replaced_by_another_is_not_waited_for(cli: Cli, api: FakeNodeApi) -> None:
    api.pairings = [a_pairing(code="OTHER-CODE-0000")]
    assert "another code was minted" in cli("pair").err


def test_json_is_one_document_a_line(cli: Cli, api: FakeNodeApi) -> None:
    api.pairings = [a_pairing(attempts_left=2), JOINED]
    lines = [json.loads(line) for line in cli("pair", "--json").out.splitlines()]
    assert [(line["state"], line["attempts_left"]) for line in lines] == [
        ("open", 3),
        ("open", 2),
        ("joined", 3),
    ]
    assert lines[0]["code"] == "ABLE-BAKER-1234"


def test_no_wait_returns_with_the_code_open(cli: Cli, api: FakeNodeApi) -> None:
    assert "ABLE-BAKER-1234" in cli("pair", "--no-wait").out
    assert [name for name, _ in api.calls] == ["pair"]


@pytest.mark.parametrize(("yes", "code"), [(True, 0), (False, 1)])
def test_with_sas_a_person_compares(
    yes: bool, code: int, cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    monkeypatch.setattr("click.confirm", lambda text, **_: questions.append(text) or yes)
    api.pairings = [a_pairing(), a_pairing("confirming", sas=SAS, joiner=JOINER), JOINED]
    ran = cli("pair", "--sas")
    assert ran.code == code
    assert questions == ["Does mini show the same?"]
    assert "123 456" in ran.err
    assert ("pair_confirm", (t.PairConfirm(accept=yes),)) in api.calls


def test_ctrl_c_voids_the_code(cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pairing, "sleep", interrupted)
    api.pairings = [a_pairing()]
    ran = cli("pair")
    assert ran.code == 1
    assert api.calls[-1] == ("pair_cancel", ())
    assert "the code is void" in ran.err


def test_a_terminal_sees_the_countdown_and_the_attempts(
    cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_tui.commands.output.sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    api.pairings = [a_pairing(), a_pairing(expires_in_ms=61_000, attempts_left=2), JOINED]
    err = cli("pair").err
    assert "1:59 left  ●●●" in err
    assert "1:01 left  ●●○" in err


def test_join_without_a_node_works_on_the_files_of_the_home(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def join_home(
        home: Home, url: str, code: str, nickname: str | None, *, witness: bool, **_: Any
    ) -> t.JoinResult:
        asked.append((home, url, code, nickname, witness))
        return t.JoinResult(MINI, "mesh_1", {"nickname": "desk"}, SAS, "instar-tui")

    joining = ModuleType("instar_node.joining")
    joining.join_home = join_home  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "instar_node.joining", joining)
    ran = cli("join", "http://desk:7707", "--code", "able baker 1234", "--nickname", "mini")
    assert ran.code == 0
    assert cli("join", "http://desk:7707", "--code", "able baker 1234", "--witness").code == 0
    assert asked == [
        (cli.home, "http://desk:7707", "able baker 1234", "mini", False),
        (cli.home, "http://desk:7707", "able baker 1234", None, True),
    ]
    assert "123 456" in ran.out
    assert "instar-tui" in ran.out


@pytest.mark.parametrize("yes", [True, False])
def test_join_through_a_node_asks_the_person_while_the_node_waits(
    yes: bool, cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    monkeypatch.setattr("click.confirm", lambda text, **_: questions.append(text) or yes)
    monkeypatch.setattr(pairing, "LOOK_EVERY_S", 0.01)
    api.pairings = [a_pairing("none"), *[a_pairing("confirming", sas=SAS)] * 100]
    cli("join", "http://desk:7707", "--code", "able baker 1234", "--sas")
    assert questions == ["Does the other machine show the same?"]
    assert ("pair_confirm", (t.PairConfirm(accept=yes),)) in api.calls
    assert [name for name, _ in api.calls].count("pair_confirm") == 1
