"""Every screen of the real app over a scripted node, driven by keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.message import Message
from textual.worker import Worker, WorkerState

from instar_node import __version__
from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_tui.actions import PLACES
from instar_tui.screens.lease import Holding
from tests.tui.conftest import Centre, running
from tests.tui.fake_node import LAPTOP, MINI, FakeNode

SIZES = [(80, 24), (120, 36), (200, 50)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("theme", ["instar-dark", "instar-light"])
async def test_every_screen_has_its_header_and_keys_at_every_size(
    node: FakeNode, size: tuple[int, int], theme: str
) -> None:
    async with running(node, size=size, theme=theme) as centre:
        for place in PLACES:
            await centre.go(place.name)
            await centre.until(lambda place=place: f"{place.key} {place.title}" in centre.lines()[1])
            lines = centre.lines()
            assert "desk" in lines[0]
            assert "AWAKE" in lines[0]
            assert "epoch 7" in lines[0]
            assert "quiet-river" in lines[0]
            assert "palette" in lines[-1]


async def test_the_overview_answers_who_is_awake_and_what_if_it_died(centre: Centre) -> None:
    text = centre.text()
    assert "desk is awake since" in text
    assert "by promises of mini, attic" in text
    assert "If it died now: mini answers after 6.2s" in text
    assert "◇ laptop       benched" in text


async def test_another_theme_recolours_what_is_drawn(centre: Centre) -> None:
    def colours() -> set[str]:
        strips = centre.app.screen._compositor.render_strips()
        return {
            str(s.style.bgcolor.triplet) for strip in strips for s in strip if s.style and s.style.bgcolor
        }

    dark = colours()
    centre.app.theme = "instar-light"
    await centre.pilot.pause(0.1)
    assert not dark & colours()


async def test_a_mesh_of_one_is_told_the_three_steps_to_a_second_machine() -> None:
    async with running(FakeNode(1, expires=False)) as centre:
        await centre.until("Three steps to the second machine")
        assert "instar join http://192.168.1.20:7707 --code" in centre.text()
        assert "nobody takes over – there is no second machine" in centre.text()
        centre.node.machines_ = FakeNode(2).machines_
        centre.node.say("machines", "mini joined")
        await centre.until(lambda: "Three steps" not in centre.text() and "● mini" in centre.text())


async def test_without_a_second_machine_no_timer_runs() -> None:
    async with running(FakeNode(1, expires=False)) as centre:
        ticks = []
        centre.app.base_screen().tick = lambda: ticks.append(1)
        await centre.pilot.pause(0.5)
        assert ticks == []


async def test_the_lease_drains_on_the_screen(centre: Centre) -> None:
    await centre.go("lease")
    holding = centre.app.screen.query_one(Holding)
    seen: set[str] = set()
    for _ in range(8):
        seen.add(str(holding.render()))
        await centre.pilot.pause(0.1)
    assert len(seen) >= 3


async def test_the_lease_screen_shows_evidence_and_every_epoch(centre: Centre) -> None:
    await centre.go("lease")
    text = centre.text()
    for word in (
        "promises, a round every 2.0s",
        "electorate",
        "benched",
        "failover",
        "founded",
        "yesterday 22:10",
    ):
        assert word in text or word == "yesterday 22:10"


async def test_split_brain_is_a_band_on_every_screen_with_what_to_do(centre: Centre) -> None:
    centre.node.split_brain = {"evidence": "two records of epoch 7"}
    centre.node.say("lease", "two records of epoch 7")
    for place in PLACES:
        await centre.go(place.name)
        await centre.until("‼ SPLIT BRAIN. Everybody has stopped")
        assert "two records of epoch 7" in centre.text()
        assert "press H (instar lease heal)" in centre.text()
    await centre.go("lease")
    await centre.until("H heal")
    assert "nobody may act until a person has decided" in centre.text()
    centre.node.split_brain = None
    centre.node.say("lease", "healed")
    await centre.until(lambda: "H heal" not in centre.text())


async def test_text_of_others_is_neither_markup_nor_obeyed(centre: Centre) -> None:
    await centre.go("topics")
    await centre.until("␛[31mwater␇ the [bold]tomatoes[/bold]")
    await centre.go("conversation")
    await centre.until("[red]this[/red]")
    assert "\x1b" not in centre.text()
    assert "\x07" not in centre.text()


async def test_the_tail_shows_each_copy_and_the_target_line(centre: Centre) -> None:
    await centre.go("tail")
    await centre.until("copy on")
    text = centre.text()
    assert "214" in text
    assert "88.0 kB" in text
    assert "40ms┄" in text


async def test_a_row_is_filtered_with_a_slash(centre: Centre) -> None:
    await centre.go("topics")
    await centre.pilot.press("slash", *"kit")
    await centre.until("1 of 6")
    assert "release" not in centre.text()
    await centre.pilot.press("escape")
    await centre.until("release")


async def test_enter_opens_the_topic_and_its_messages_carry_machine_epoch_and_state(centre: Centre) -> None:
    await centre.go("topics")
    await centre.pilot.press("enter")
    await centre.until("agent on mini")
    text = centre.text()
    assert "epoch 6" in text
    assert "✔ answered" in text
    assert "◐ answering" in text


async def test_what_is_written_is_sent_and_shown(centre: Centre) -> None:
    await centre.go("conversation")
    await centre.until("agent on mini")
    await centre.pilot.press("i", *"hello", "enter")
    await centre.until("hello")
    body = centre.node.called("send")[0]
    assert (body.topic, body.text) == ("42", "hello")
    await centre.until("○ received")


async def test_a_conversation_follows_its_newest_message_until_one_scrolls_up(node: FakeNode) -> None:
    fetched = asyncio.Event()

    def hook(message: Message) -> None:
        match message:
            case Worker.StateChanged(state=WorkerState.SUCCESS, worker=Worker(group="messages")):
                if node.messages_["42"][-1].text == "one more thing":
                    fetched.set()

    async with running(node, size=(80, 24), message_hook=hook) as centre:
        await centre.pilot.press("6")  # made within the app, so that the hook sees its messages
        await centre.until("waiting for you")
        await centre.pilot.press("home")
        await centre.until("is the nightly build green?")
        await node.send(t.SendRequest("42", "one more thing"))
        await asyncio.wait_for(fetched.wait(), 3)
        await centre.pilot.pause()
        assert "is the nightly build green?" in centre.text()
        await centre.pilot.press("end")
        await centre.until("one more thing")
        await node.send(t.SendRequest("42", "and the last"))
        await centre.until("and the last")


@pytest.mark.parametrize(
    ("size", "classes"),
    [((80, 24), {"-narrow", "-short"}), ((149, 34), {"-narrow", "-tall"}), ((150, 33), {"-wide", "-short"})],
)
async def test_a_screen_knows_its_room_before_it_is_laid_out_so_that_nothing_jumps(
    node: FakeNode, size: tuple[int, int], classes: set[str]
) -> None:
    async with running(node, size=size) as centre:
        for name in ("topics", "conversation"):
            made = centre.app.MODES[name]
            assert callable(made)
            assert made().classes >= classes
            await centre.go(name)
            assert centre.app.screen.classes >= classes


async def test_a_conversation_just_too_long_for_its_place_shows_its_newest_line(node: FakeNode) -> None:
    async with running(node, size=(80, 24)) as centre:
        await centre.go("conversation")
        await centre.until("日本語")


async def test_text_of_a_conversation_is_selected_with_the_mouse(centre: Centre) -> None:
    await centre.go("conversation")
    await centre.until("412 tests passed")
    y = next(number for number, line in enumerate(centre.lines()) if "412 tests passed" in line)
    x = centre.lines()[y].index("412")
    await centre.pilot.mouse_down(offset=(x, y))
    await centre.pilot.hover(offset=(x + 9, y))
    await centre.pilot.mouse_up(offset=(x + 9, y))
    await centre.pilot.press("y")
    await centre.pilot.pause()
    assert centre.app.clipboard.startswith("412 tests")


async def test_a_refused_message_stays_in_the_line(centre: Centre) -> None:
    await centre.go("conversation")
    await centre.until("agent on mini")
    await centre.pilot.press("i", *"precious")
    centre.node.failing = InstarError("not-awake", "nobody is awake")
    await centre.pilot.press("enter")
    await centre.until("nobody is awake")
    await centre.until(lambda: centre.app.screen.query_one("#composer").value == "precious")  # type: ignore[attr-defined]


async def test_a_person_answers_the_waiting_message(centre: Centre) -> None:
    await centre.go("conversation")
    await centre.until("waiting for you")
    await centre.pilot.press("a", *"yes", "enter")
    await centre.until(lambda: centre.node.called("reply"))
    assert centre.node.called("reply")[0].reply_to == "local:42:6"
    await centre.until(lambda: "waiting for you" not in centre.text())


async def test_an_undecided_reply_is_decided_with_one_key(node: FakeNode) -> None:
    node.undecided = [t.OutboxItem("o1", "r1", "42", "undecided", 6, "the lease ended", "three are missing")]
    async with running(node) as centre:
        await centre.go("health")
        await centre.until("three are missing")
        await centre.pilot.press("d")
        await centre.until("no reply is undecided")
        assert node.called("outbox_resolve") == [("o1", "drop")]


async def test_events_follow_the_newest_until_the_cursor_leaves_it(centre: Centre) -> None:
    await centre.go("events")
    centre.node.say("handoff", "first")
    await centre.until("first")
    await centre.pilot.press("g")
    await centre.until("standing still")
    for number in range(60):
        centre.node.say("handoff", f"later {number}")
    await centre.pilot.pause(0.3)
    assert "later 59" not in centre.text()
    await centre.pilot.press("f")
    await centre.until("later 59")


async def test_a_lost_daemon_is_a_band_and_mends_itself(node: FakeNode) -> None:
    async with running(node, embedded=False) as centre:
        assert "attached" in centre.lines()[0]
        node.failing = InstarError("node-not-running", "no node runs on this home", "start one")
        node.say("lease", "bye")
        await centre.until("no contact with the node")
        assert "no node runs on this home" in centre.text()
        node.failing = None
        await centre.until(lambda: "no contact" not in centre.text())


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_a_daemon_updated_under_the_control_centre_is_told_on_every_screen(
    node: FakeNode, size: tuple[int, int]
) -> None:
    async with running(node, embedded=False, size=size, keymap={"quit-app": "f10"}) as centre:
        assert "this control centre" not in centre.text()
        node.version = "77.0"
        node.say("machines", "desk runs 77.0")
        await centre.until("the node runs 77.0 now, this control centre")
        assert "f10 leaves it; start it again" in " ".join(centre.text().split())
        await centre.go("lease")
        await centre.until("the node runs 77.0 now")
        node.version = __version__
        node.say("machines", "desk is back")
        await centre.until(lambda: "the node runs" not in centre.text())


async def test_a_daemon_that_is_older_than_what_is_installed_is_told_with_its_mending(node: FakeNode) -> None:
    node.version = "0.0.9"
    async with running(node, embedded=False) as centre:
        await centre.until(f"this control centre is {__version__}, the node still runs 0.0.9")
        assert "instar update restarts it" in centre.text()


async def test_an_embedded_node_is_this_program_whatever_its_version_says(node: FakeNode) -> None:
    node.version = "77.0"
    async with running(node) as centre:
        assert "77.0 now" not in centre.text()
        assert "the node still runs" not in centre.text()


async def test_a_node_that_hangs_leaves_the_screens_alive_and_is_waited_for(node: FakeNode) -> None:
    async with running(node) as centre:
        node.hung.clear()
        node.say("lease", "and then it hung")
        await centre.until("the node has not answered for", 5.0)
        assert "◌ no answer" in centre.lines()[0]
        await centre.pilot.press("5")
        await centre.until("release")
        node.hung.set()
        await centre.until(lambda: "◌ no answer" not in centre.text())


async def test_alerts_are_counted_in_the_header_and_explained_on_health(node: FakeNode) -> None:
    node.alerts = [t.Alert("stale", "attic was never verified", "instar verify attic")]
    async with running(node) as centre:
        assert "⚠ 1" in centre.lines()[0]
        await centre.go("health")
        await centre.until("instar verify attic")


async def test_machines_are_renamed_and_removed_only_after_a_yes(centre: Centre) -> None:
    await centre.go("machines")
    await centre.pilot.press("G", "x")
    await centre.until("Remove laptop from the mesh?")
    await centre.pilot.press("escape")
    assert centre.node.called("remove_machine") == []
    await centre.pilot.press("x")
    await centre.until("Remove laptop from the mesh?")
    await centre.pilot.press("y")
    await centre.until(lambda: centre.node.called("remove_machine") == [LAPTOP])
    await centre.until(lambda: "laptop" not in "\n".join(centre.lines()[3:12]))
    await centre.pilot.press("g", "j", "j", "r")
    await centre.until("New nickname of mini")
    await centre.pilot.press(*"box", "enter")
    await centre.until(lambda: centre.node.called("rename") == [(MINI, "box")])


async def test_what_is_selected_is_copied(centre: Centre) -> None:
    await centre.go("machines")
    await centre.pilot.press("j", "j", "y")
    await centre.pilot.pause()
    assert centre.app.clipboard == MINI


async def test_a_screen_is_saved_where_the_program_was_started(
    centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await centre.go("lease")
    await centre.pilot.press("ctrl+s")
    await centre.until("saved")
    (picture,) = tmp_path.glob("instar-lease-*.svg")
    assert "history" in picture.read_text("utf-8")


async def test_join_says_that_this_home_belongs_to_a_mesh_and_completes_words(centre: Centre) -> None:
    await centre.go("join")
    await centre.until("already belongs to mesh quiet-river")
    await centre.pilot.press("y")
    await centre.until(lambda: centre.app.clipboard == "instar --home NEW-FOLDER join URL --code CODE")
    await centre.pilot.press("tab", *"http", "enter")
    await centre.pilot.press(*"RIVE")
    await centre.pilot.pause(0.2)
    await centre.pilot.press("right")
    code = centre.app.screen.query_one("#code")
    assert code.value == "RIVER-"  # type: ignore[attr-defined]
    await centre.pilot.press(*"STONE-4071", "enter")
    await centre.until("use a fresh home")
    assert centre.node.called("join")[0].code == "RIVER-STONE-4071"
