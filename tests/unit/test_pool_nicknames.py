"""Which messages move their topic, and which are talk."""

from __future__ import annotations

import pytest

from instar_node.contracts import Member
from instar_node.pool.nicknames import Command, NicknameCommand, RelocationNicknameSet
from tests.unit.fakes_mesh import FakeMembers

MEMBERS = FakeMembers("desk", "mini", "Old Laptop", "mac-studio", "Büro", "机器", "attic yes")


def recognise(text: str) -> Command | None:
    return NicknameCommand(RelocationNicknameSet(MEMBERS, "m-desk")).recognise(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/move mini", "mini"),
        ("/move Old Laptop", "Old Laptop"),
        ("/move here", "here"),
        ("/MOVE nowhere-at-all", "nowhere-at-all"),
        ("move this to the mini", "mini"),
        ("Move this to mini.", "mini"),
        ("please move this to my mini", "mini"),
        ("Could you please move it over to the mini?", "mini"),
        ("move this topic to desk", "desk"),
        ("move the conversation to old laptop", "old laptop"),
        ("transfer this to mac-studio please", "mac-studio"),
        ("send this chat to the mini, thanks!", "mini"),
        ("switch us over to the mini", "mini"),
        ("bring it back to desk", "desk"),
        ("run this on desk", "desk"),
        ("run this on the mini", "mini"),
        ("  run   it on\tMINI  ", "MINI"),
        ("continue this on my mac-studio", "mac-studio"),
        ("pin this here", "here"),
        ("Pin this topic to the mini", "mini"),
        ("pin it on desk", "desk"),
        ("keep this here please", "here"),
        ("move it back here", "here"),
        ("bring this over here", "here"),
        ("ok, move this here now", "here"),
        ("move this to the büro", "büro"),
        ("move this to BU\u0308RO", "BÜRO"),
        ("/move bu\u0308ro", "büro"),
        ("run this on 机器", "机器"),
        ("/move attic yes", "attic yes"),
        ("would you move us onto my mini", "mini"),
        ("hand this session over to desk", "desk"),
        ("take this back to the Old Laptop!!", "Old Laptop"),
        ("hey, relocate this thread to mac-studio now", "mac-studio"),
    ],
)
def test_a_whole_message_that_orders_a_move_is_a_command(text: str, name: str) -> None:
    assert recognise(text) == Command("move", name)


@pytest.mark.parametrize(
    "text",
    [
        "move this to the bin",
        "move this to the mini and then run the tests",
        "Please move this to production",
        "should we move this to the mini?",
        "I will move this to the mini tomorrow",
        "don't move this to the mini",
        "how do I move this to the mini",
        "he said: move this to the mini",
        "run this on staging",
        "run this on every file",
        "run this here: make test",
        "run this on desk and on mini",
        "pin this version",
        "pin this to the top",
        "pin the dependency to desk",
        "move the button to the left",
        "move it",
        "move mini",
        "the mini is slow today",
        "mini",
        "here",
        "/moving mini",
        "/move",
        "what does /move mini do?",
        "keep this in mind",
        "send this to Ada",
        "undo",
        "unpin",
        "move this\nto the README",
        "",
        "move this to büro-2",
        "move this to the mini please and thank Ada",
        "run this on 机",
        "can you move this to the mini or is it busy?",
        "is this running on the mini?",
        "why is this on desk",
        "the command /move mini did not work",
        "> move this to the mini",
        "moving this to the mini",
        "we moved this to the mini yesterday",
        '"move this to the mini"',
        "move these to the mini",
        "move this to mini, desk",
        "move that to the mini",
        "pin this on the wall",
        "keep this here until Friday",
        "bring it home",
        "send this to mini@example.net",
    ],
)
def test_talk_reaches_the_agent(text: str) -> None:
    assert recognise(text) is None


@pytest.mark.parametrize("text", ["/unpin", "unpin this", "please unpin this topic."])
def test_a_pin_comes_off(text: str) -> None:
    assert recognise(text) == Command("unpin")


@pytest.mark.parametrize("text", ["/undo", "/move back"])
def test_the_last_move_is_taken_back(text: str) -> None:
    assert recognise(text) == Command("undo")


@pytest.mark.parametrize("text", ["/move mini yes", "/move mini!", "/move  mini  YES"])
def test_a_move_is_confirmed_in_the_same_words(text: str) -> None:
    assert recognise(text) == Command("move", "mini", confirmed=True)


def test_names_resolve_whatever_their_case_and_ids_do_too() -> None:
    names = RelocationNicknameSet(MEMBERS, "m-desk")
    assert names.resolve("MINI") == "m-mini"
    assert names.resolve("m-mini") == "m-mini"
    assert names.resolve("old  laptop") == "m-Old Laptop"
    assert names.resolve("here") == "m-desk"
    assert names.resolve("nowhere") is None
    assert names.known() == ["desk", "mini", "Old Laptop", "mac-studio", "Büro", "机器", "attic yes"]
    assert names.resolve("BU\u0308RO") == "m-Büro"
    assert names.resolve("m-" + "0" * 32) is None, "the id of a machine that is no member"


def test_the_own_name_is_always_known_and_a_witness_is_no_place_to_run() -> None:
    class Alone(FakeMembers):
        def active(self) -> tuple[Member, ...]:
            return (Member("m-tower", "tower", b"", b"", (), "", "", witness=True),)

    names = RelocationNicknameSet(Alone("desk"), "m-desk")
    assert names.resolve("desk") == "m-desk"
    assert names.resolve("tower") is None
    assert names.known() == ["desk"]
