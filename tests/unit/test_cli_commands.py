"""Each command asks the node for the right thing and tells its answer, for people and in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from tests.unit.fake_api import ME, MINI, FakeNodeApi, a_handoff
from tests.unit.served import Cli, home_at, serving


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


@pytest.mark.parametrize(
    ("line", "kind", "call"),
    [
        ("whoami", t.WhoAmI, ("whoami", ())),
        ("machines", t.Machines, ("machines", ())),
        ("machines remove mini", t.Ok, ("remove_machine", ("mini",))),
        ("leave", t.Ok, ("leave", ())),
        ("status", t.Status, ("status", ())),
        ("lease", t.LeaseView, ("lease", ())),
        ("pair --no-wait --sas", t.PairView, ("pair", (t.PairRequest(sas=True),))),
        (
            "join http://a --code A-B-1 --nickname n",
            t.JoinResult,
            ("join", (t.JoinRequest("http://a", "A-B-1", "n"),)),
        ),
        ("wakeup", t.HandoffResult, ("wakeup", (t.WakeupRequest(),))),
        ("hub", t.HubView, ("lease", ())),
        ("hub /mnt/hub.git", t.HubMoved, ("move_hub", (t.HubRequest("/mnt/hub.git"),))),
        ("handoff mini", t.HandoffResult, ("handoff", (t.HandoffRequest("mini"),))),
        (
            "send work hi --key k --sender me",
            t.SendResult,
            ("send", (t.SendRequest("work", "hi", "k", "me"),)),
        ),
        ("log work", t.Messages, ("messages", ("work", 0, 1000))),
        ("outbox", t.Outbox, ("outbox", ())),
        ("sync", t.SyncView, ("sync", ())),
        ("sync --seen", t.SyncView, ("sync_seen", ())),
        ("outbox resolve o1 drop", t.Ok, ("outbox_resolve", ("o1", t.OutboxAction("drop")))),
        ("placement work", t.PlacementView, ("placement", ("work",))),
        ("transfer work mini", t.TransferResult, ("transfer", (t.TransferRequest("work", "mini"),))),
        ("transfer work --undo", t.TransferResult, ("transfer", (t.TransferRequest("work", undo=True),))),
        ("unpin work", t.PlacementView, ("unpin", (t.UnpinRequest("work"),))),
        ("secret list", t.Secrets, ("secrets", ())),
        ("secret get TOKEN", t.Secret, ("secret", ("TOKEN",))),
        ("secret rm TOKEN", t.Ok, ("remove_secret", ("TOKEN",))),
        ("nickname attic", t.Machine, ("rename", (ME, t.RenameRequest("attic")))),
        ("nickname attic --machine mini", t.Machine, ("rename", ("mini", t.RenameRequest("attic")))),
        ("verify", t.VerifyResult, ("verify", (t.VerifyRequest(),))),
        ("verify mini --rehearse", t.VerifyResult, ("verify", (t.VerifyRequest("mini", True),))),
        ("flags", t.Flags, ("flags", ())),
        ("flags livetail open", t.Flags, ("set_flag", (t.FlagChange("livetail", "open"),))),
        ("update", t.UpdateResult, ("update", (t.UpdateRequest(),))),
        ("update --to 0.2.0", t.UpdateResult, ("update", (t.UpdateRequest("0.2.0"),))),
        ("update --status", t.Updates, ("updates", ())),
    ],
)
def test_the_node_is_asked_and_its_answer_is_the_json(
    line: str, kind: Any, call: tuple[str, tuple[Any, ...]], cli: Cli, api: FakeNodeApi
) -> None:
    api.say("user", "hello", "k0")
    ran = cli(*line.split(), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert call in api.calls
    msgspec.convert(ran.json, kind)
    api.calls.clear()
    plain = cli(*line.split())
    assert plain.code == 0
    assert call in api.calls
    assert plain.out
    assert not plain.out.startswith("{")
    assert "\x1b" not in plain.out


def test_whoami_shows_what_people_compare(cli: Cli, api: FakeNodeApi) -> None:
    lines = dict(line.split(None, 1) for line in cli("whoami").out.splitlines())
    assert lines["nickname"] == "desk"
    assert lines["machine"] == ME
    assert lines["fingerprint"] == "able baker charlie dog easy"
    assert lines["mesh"] == "quiet-river  (mesh_1)"


def test_machines_are_an_aligned_table(cli: Cli, api: FakeNodeApi) -> None:
    head, desk, mini = cli("machines").out.splitlines()
    at = head.index("ROLE")
    assert (desk[at : at + 5], mini[at : at + 7]) == ("awake", "standby")
    assert desk.startswith("desk (this one) ")
    assert "12ms" in mini
    assert mini.index(MINI) == head.index("MACHINE")


def test_sync_says_what_waits_and_what_was_kept_out(cli: Cli, api: FakeNodeApi) -> None:
    out = cli("sync").out
    assert "state      edits of this machine wait for the awake one" in out
    assert "notes.md  changed" in out
    assert "b2b2b2b2b2b2  the hub  commit b2 is not signed" in out
    assert "plan.md                  plan.conflict-mini-3.md, of mini" in out
    assert "video.mp4   it is larger than 16 MiB" in out


def test_status_answers_the_one_question(cli: Cli, api: FakeNodeApi) -> None:
    out = cli("status").out
    assert "desk (this machine) is awake, epoch 7, valid for 5.8s" in out
    assert "mini would take over after 6.1s" in out
    assert "! there is no automatic failover — instar hub URL" in out
    assert "mini 12ms behind (entries: 2)" in out


def test_the_lease_shows_evidence_and_history(cli: Cli, api: FakeNodeApi) -> None:
    out = cli("lease").out
    assert "path /srv/hub.git, answers in 2ms" in out
    assert "EPOCH" in out
    assert "PROMISED" in out


def test_a_failed_drill_names_the_component_and_the_finding(cli: Cli, api: FakeNodeApi) -> None:
    api.broken = True
    ran = cli("verify", "mini")
    assert ran.code == 1
    assert "error: mini: livetail: a push was not acknowledged within 10 s" in ran.err
    assert "desk with mini: FAILED" in ran.out


def test_gates_are_shown_with_why_and_need_a_whole_wish(cli: Cli, api: FakeNodeApi) -> None:
    out = cli("flags").out
    assert "SHUT" in out
    assert "mini: its drill failed" in out
    assert cli("flags", "livetail").code == 2
    assert cli("flags", "livetail", "ajar").code == 2


def test_a_failed_update_exits_1_with_the_reason_and_who_is_held_back(cli: Cli, api: FakeNodeApi) -> None:
    api.broken = True
    ran = cli("update")
    assert ran.code == 1
    assert "it came up with version 0.1.0 instead of 0.2.0" in ran.err
    assert "held back" in cli("update", "--status").out


def test_an_aborted_handoff_is_told_and_exits_1(cli: Cli, api: FakeNodeApi) -> None:
    api.handoff_outcome = a_handoff("aborted", "mini went away")
    ran = cli("handoff", "mini")
    assert ran.code == 1
    assert "aborted: mini went away" in ran.err
    assert "closed" in ran.out
    assert cli("handoff", "mini", "--json").json["outcome"] == "aborted"


def test_the_steps_of_a_handoff_are_shown(cli: Cli, api: FakeNodeApi) -> None:
    assert cli("wakeup").out.splitlines() == [
        "     0ms  asked",
        "    12ms  closed",
        "    42ms  awake",
        "mini is awake, epoch 8 (42ms)",
    ]


def test_an_epoch_of_a_later_generation_is_told_as_everywhere(cli: Cli, api: FakeNodeApi) -> None:
    api.handoff_outcome.epoch = 1_000_001
    assert "awake, epoch 1·1 (" in cli("wakeup").out


def test_force_needs_the_word_of_a_person(cli: Cli, api: FakeNodeApi) -> None:
    refused = cli("wakeup", "--force", "--json")
    assert refused.code == 4
    assert refused.json["error"]["vouch"] == [MINI]
    assert cli("wakeup", "--force", "--yes").code == 0
    assert api.calls[-1] == ("wakeup", (t.WakeupRequest(force=True, vouch=[MINI]),))


def test_a_split_brain_is_healed_by_the_word_of_a_person(cli: Cli, api: FakeNodeApi) -> None:
    refused = cli("lease", "heal", "--json")
    assert refused.code == 4
    assert refused.json["error"]["prompt"] == "Go on from this machine's line?"
    assert cli("lease", "heal", "--yes").code == 0
    assert api.calls[-1] == ("lease_heal", (t.HealRequest(confirm=True, vouch=[MINI]),))


def test_a_transfer_that_needs_confirmation_sends_the_token_back_only_with_yes(
    cli: Cli, api: FakeNodeApi
) -> None:
    api.transfer_outcome = "ask"
    refused = cli("transfer", "work", "mini", "--json")
    assert refused.code == 4
    assert refused.json["error"]["prompt"] == "Move work to mini, which is offline?"
    assert [call for call, _ in api.calls] == ["transfer"]
    assert cli("transfer", "work", "mini", "--yes").code == 0
    assert api.calls[-1] == ("transfer", (t.TransferRequest("work", "mini", "token-1"),))


def test_an_unknown_machine_is_refused(cli: Cli, api: FakeNodeApi) -> None:
    ran = cli("machines", "remove", "attic", "--json")
    assert (ran.code, ran.json["error"]["known"]) == (1, ["mini"])


def test_what_a_person_should_do_after_a_removal_is_said(cli: Cli, api: FakeNodeApi) -> None:
    assert cli("machines", "remove", "mini").out.splitlines()[-1] == "revoke its git credentials"


class Answers:
    """A person at a terminal, in short: ``yes`` or ``no`` to every question."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, yes: bool) -> None:
        self.questions: list[str] = []
        monkeypatch.setattr("instar_tui.commands.base.sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("click.confirm", lambda text, **_: self.questions.append(text) or yes)


@pytest.mark.parametrize("line", ["leave", "machines remove mini"])
def test_a_person_is_asked_before_what_cannot_be_undone(
    line: str, cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(monkeypatch, yes=False)
    assert cli(*line.split()).code == 4
    assert "for good?" in answers.questions[0]
    assert not api.calls
    assert cli(*line.split(), "--yes").code == 0
    assert len(answers.questions) == 1


def test_a_person_is_asked_the_prompt_of_the_node(
    cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(monkeypatch, yes=True)
    api.transfer_outcome = "ask"
    assert cli("transfer", "work", "mini").code == 0
    assert answers.questions == ["Move work to mini, which is offline?"]


def test_a_terminal_gets_a_drawn_table_and_no_color_gets_none(
    cli: Cli, api: FakeNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instar_tui.commands.output.sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert "\x1b[" in cli("machines").out
    monkeypatch.setenv("NO_COLOR", "1")
    plain = cli("machines").out
    assert "\x1b" not in plain
    assert plain.startswith("NICKNAME")


def test_hub_tells_where_the_lease_lies_and_who_could_not_follow(cli: Cli, api: FakeNodeApi) -> None:
    assert "/srv/hub.git (path)" in cli("hub").out
    moved = cli("hub", "/mnt/hub.git")
    assert "/mnt/hub.git (path) now, epoch 8" in moved.out
    assert "mini could not confirm" in moved.err
    assert "mounted" in moved.err


def test_leaving_a_dead_hub_asks_whom_to_vouch_for(cli: Cli, api: FakeNodeApi) -> None:
    extra = {"prompt": "Is mini off?", "vouch": [MINI]}
    api.errors["move_hub"] = InstarError("needs-confirmation", "mini cannot be reached", extra=extra)
    assert cli("hub", "/mnt/hub.git", "--force").code == 4
    assert api.calls[-1] == ("move_hub", (t.HubRequest("/mnt/hub.git", force=True),))
    cli("hub", "/mnt/hub.git", "--force", "--yes")
    assert api.calls[-1] == ("move_hub", (t.HubRequest("/mnt/hub.git", force=True, vouch=[MINI]),))


def test_a_path_relative_to_the_shell_is_told_to_the_node_in_full(
    cli: Cli, api: FakeNodeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli("hub", "./shared/../hub.git")
    assert api.calls[-1] == ("move_hub", (t.HubRequest(str(tmp_path / "hub.git")),))
