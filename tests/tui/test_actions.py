"""One table of actions feeds keys, footer, help and palette; people remap it."""

from __future__ import annotations

from collections import Counter

import pytest

from instar_tui.actions import ACTIONS, BY_ID, EVERYWHERE, PLACES
from tests.readme_keys import README, with_table
from tests.tui.conftest import Centre, running
from tests.tui.fake_node import FakeNode


def test_ids_are_unique_and_every_action_says_what_it_does() -> None:
    assert len(BY_ID) == len(ACTIONS)
    assert all(action.title and action.tooltip and action.group for action in ACTIONS)


@pytest.mark.parametrize("scope", [place.name for place in PLACES])
def test_no_key_means_two_things_on_one_screen(scope: str) -> None:
    own = [key for a in ACTIONS if a.scope != EVERYWHERE and a.on(scope) for key in a.key.split(",")]
    assert [key for key, times in Counter(own).items() if times > 1] == []
    everywhere = [key for a in ACTIONS if a.scope == EVERYWHERE for key in a.key.split(",")]
    assert [key for key, times in Counter(everywhere).items() if times > 1] == []


async def test_every_action_has_a_method_behind_it(centre: Centre) -> None:
    for action in ACTIONS:
        scopes = (
            [place.name for place in PLACES] if action.scope == EVERYWHERE else [action.scope, *action.also]
        )
        for scope in scopes:
            await centre.go(scope)
            holders = (centre.app.base_screen(), centre.app)
            assert any(hasattr(holder, f"action_{action.method}") for holder in holders), (action.id, scope)


async def test_help_lists_every_action_with_its_command(node: FakeNode) -> None:
    async with running(node, size=(160, 120)) as centre:
        await centre.pilot.press("question_mark")
        await centre.until("in every table")
        text = centre.text()
        for action in ACTIONS:
            assert action.tooltip[:40] in text
            assert action.cli in text
        inside = [line.split("│")[1] for line in centre.lines() if line.count("│") == 2]
        assert inside
        assert "…" not in "".join(inside), "nothing is cut off"


async def test_a_person_remaps_a_key_and_the_footer_says_so(node: FakeNode) -> None:
    async with running(node, keymap={"go-topics": "f5", "transfer": "m"}) as centre:
        await centre.pilot.press("f5")
        assert centre.app.current_mode == "topics"
        await centre.until(" m  transfer" if " m  transfer" in centre.text() else " m transfer")
        await centre.pilot.press("m")
        await centre.until("move 42 to")


async def test_a_keymap_for_no_action_is_named(node: FakeNode) -> None:
    async with running(node, keymap={"teleport": "f9"}) as centre:
        await centre.until("there is no action 'teleport'")


async def test_a_click_on_a_tab_goes_there(centre: Centre) -> None:
    x = centre.lines()[1].index("5 Topics")
    await centre.pilot.click(offset=(x + 2, 1))
    await centre.pilot.pause()
    assert centre.app.current_mode == "topics"


async def test_a_click_on_a_key_does_what_the_key_does(centre: Centre) -> None:
    await centre.go("topics")
    x = centre.lines()[-1].index("t transfer")
    await centre.pilot.click(offset=(x + 3, 35))
    await centre.until("move 42 to")


async def test_the_footer_offers_a_change_of_roles_only_where_it_would_do_something(node: FakeNode) -> None:
    async with running(node) as centre:
        for place in ("overview", "machines", "lease"):
            await centre.go(place)
            await centre.until(lambda: "h hand off" in centre.lines()[-1])
            assert "wake here" not in centre.lines()[-1], "it is awake"
        node.falls_asleep()
        await centre.until(lambda: "w wake here" in centre.lines()[-1])
        node.split_brain = {"evidence": "two records of epoch 7"}
        node.say("lease", "two records of epoch 7")
        await centre.until(lambda: "H heal" in centre.lines()[-1])
        assert "wake here" not in centre.lines()[-1], "a split brain is healed first"
        assert "hand off" not in centre.lines()[-1]
    async with running(FakeNode(1)) as centre:
        await centre.until(lambda: "p Pair" in centre.lines()[-1])
        assert "hand off" not in centre.lines()[-1], "there is nobody to hand it to"


async def test_without_a_topic_the_footer_offers_what_begins_one(node: FakeNode) -> None:
    node.topics_ = []
    async with running(node) as centre:
        for place in ("topics", "conversation"):
            await centre.go(place)
            await centre.until(lambda: "n new topic" in centre.lines()[-1])
            for title in ("transfer", "unpin", "take back", "open", "next topic", "answer"):
                assert title not in centre.lines()[-1], place


async def test_what_was_told_before_does_not_lie_over_the_answers_to_pick(node: FakeNode) -> None:
    async with running(node, size=(80, 24)) as centre:
        await centre.go("health")
        await centre.until(lambda: centre.app.base_screen().checks.flags is not None)
        node.gates_ *= 8
        centre.app.notify("a long toast that was told just before " * 6)
        centre.app.notify("and another one " * 6)
        await centre.pilot.press("c", "o")
        await centre.until("esc cancels")
        await centre.until("and another one")
        assert sum(line.count("livetail  ") for line in centre.lines()[-3:-1]) == 8, centre.text()


async def test_the_footer_offers_an_answer_while_a_message_waits_for_one(centre: Centre) -> None:
    await centre.go("conversation")
    await centre.until(lambda: "a answer" in centre.lines()[-1])
    await centre.pilot.press("a", *"yes", "enter", "escape")
    await centre.until(lambda: "i write" in centre.lines()[-1] and "answer" not in centre.lines()[-1])


def test_the_readme_lists_the_keys_as_they_are() -> None:
    readme = README.read_text("utf-8")
    assert readme == with_table(readme), "write it anew: python -m tests.readme_keys"


async def test_while_a_line_is_typed_the_footer_shows_the_keys_of_the_line(centre: Centre) -> None:
    await centre.go("conversation")
    await centre.until("t transfer")
    await centre.pilot.press("i")
    await centre.until("enter takes it  esc leaves it")
    assert "transfer" not in centre.lines()[-1]
    await centre.pilot.press("escape")
    await centre.until("t transfer")
    await centre.go("topics")
    await centre.pilot.press("slash")
    await centre.until("enter takes it  esc leaves it")
    await centre.pilot.press("enter")
    await centre.until("t transfer")


async def test_help_begins_with_the_keys_of_the_screen_one_is_on(centre: Centre) -> None:
    await centre.go("topics")
    await centre.pilot.press("question_mark")
    await centre.until("on this screen: 5 Topics")
    assert "move the topic to another machine" in centre.text()
