"""Which messages move their topic, and which are talk."""

from __future__ import annotations

import pytest

from instar_node.contracts import Member
from instar_node.pool.nicknames import Command, NicknameCommand, RelocationNicknameSet
from tests.unit.fakes_mesh import FakeMembers

MEMBERS = FakeMembers(
    *("desk", "mini", "Old Laptop", "mac-studio", "Büro", "机器", "attic yes"),
    *("server", "office", "home", "work"),  # names that are words as well
)


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
        ("keep this conversation here please", "here"),
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
        ("run this on the server", "server"),
        ("move it to the office", "office"),
        ("switch me to home", "home"),
        ("send this conversation to work please", "work"),
        ("take us over to the office", "office"),
        ("bring me back to the office", "office"),
        ("continue this at home", "home"),
        ("continue this here", "here"),
        ("run this topic here", "here"),
        ("move us over here, thanks", "here"),
        ("MOVE THIS TO THE MINI!!!", "MINI"),
        ("move\u3000this\u3000to\u3000mini", "mini"),
        ("move this\nto the mini", "mini"),
        ("/move to the mini", "mini"),
        ("/move this to desk", "desk"),
        ("/move the mini please", "mini"),
        ('/move "Old Laptop"', "Old Laptop"),
        ("/move @mini", "mini"),
        ("/move back here", "here"),
        ("/move to nowhere", "to nowhere"),
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
        # A machine may be called "server" or "work": then "it" is the file, the mail, the release.
        "send it to the server",
        "send this to work",
        "send it over to the office",
        "take it to the office",
        "take me home",
        "bring it to work",
        "bring it here",
        "hand it over to the office",
        "do it on the server",
        "do this at home",
        "do it at work please",
        "run it here",
        "run this here",
        "keep this here",
        "keep it on the server",
        "move the work to home",
        "move the files to the server",
        "copy this to the server",
        "deploy this to the server",
        "I am at home now",
        "is the server up?",
        "switch on the server",
        "let's move this to the mini after lunch",
        "if it is slow, move this to the mini",
        "move this to mini :)",
        "(move this to mini)",
        "*move this to mini*",
        "move this to mini, then to desk",
        "move this to mini; it is faster",
        "move\u202ethis to mini",
        "move this to mini\u200b",
        "move back",
        "come back here",
        "/mover mini",
        "//move mini",
        "pin it up here",
        pytest.param("please " * 40 + "move this to the mini", id="long"),
        pytest.param("/move mini" + " please" * 30_000, id="very long"),
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
    assert names.known()[:7] == ["desk", "mini", "Old Laptop", "mac-studio", "Büro", "机器", "attic yes"]
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
