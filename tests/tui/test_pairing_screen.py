"""The pairing screen: large code, falling attempts, running countdown, who joined."""

from __future__ import annotations

import asyncio
import re

from tests.tui.conftest import Centre, running
from tests.tui.fake_node import FakeNode


async def pairing(centre: Centre) -> None:
    await centre.pilot.press("p")
    await centre.until("instar join http://192.168.1.20:7707 --code RIVER-STONE-4071")


async def test_p_mints_a_code_and_draws_it_large(centre: Centre) -> None:
    await pairing(centre)
    assert len(centre.node.called("pair")) == 1
    assert sum("██" in line for line in centre.lines()) >= 5


async def test_a_code_that_is_being_minted_is_not_voided_by_a_second(node: FakeNode) -> None:
    node.gate = asyncio.Event()
    async with running(node) as centre:
        await centre.pilot.press("p")
        await centre.until(lambda: node.called("pair"))
        await centre.go("overview")
        await centre.go("pair")
        await centre.pilot.pause(0.1)
        node.gate.set()
        await centre.until("instar join http://192.168.1.20:7707 --code RIVER-STONE-4071")
        assert len(node.called("pair")) == 1


async def test_wrong_guesses_fall_from_the_counter_as_they_happen(centre: Centre) -> None:
    await pairing(centre)
    assert "attempts ●●●" in centre.text()
    centre.node.wrong_guess()
    await centre.until("attempts ●●○", 1.0)
    await centre.until("wrong guess from 192.168.1.77")
    centre.node.wrong_guess()
    await centre.until("attempts ●○○", 1.0)
    centre.node.wrong_guess()
    await centre.until("the code is locked", 1.0)


async def test_the_countdown_runs(centre: Centre) -> None:
    await pairing(centre)
    centre.node.opened -= 60_000_000
    centre.node.say("pair", "still open")
    await centre.until(lambda: re.search(r"(1:00|0:59) left", centre.text()))
    await centre.until(lambda: re.search(r"0:5[0-8] left", centre.text()))


async def test_who_joined_is_shown_with_symbols_and_fingerprint(centre: Centre) -> None:
    await pairing(centre)
    centre.node.joined()
    await centre.until("laptop has joined as a standby")
    assert "silver tunnel gospel eager hawk" in centre.text()
    assert "fox" in centre.text()
    assert "cactus" in centre.text()
    assert "cancel the code" not in centre.lines()[-1]


async def test_an_open_code_is_shown_again_and_not_replaced(centre: Centre) -> None:
    await pairing(centre)
    await centre.go("overview")
    await pairing(centre)
    assert len(centre.node.called("pair")) == 1
    await centre.pilot.press("n")
    await centre.until(lambda: len(centre.node.called("pair")) == 2)


async def test_escape_voids_the_code(centre: Centre) -> None:
    await pairing(centre)
    await centre.until(lambda: "esc cancel the code" in centre.lines()[-1])
    await centre.pilot.press("escape")
    await centre.until(lambda: centre.node.called("pair_cancel"))
    assert centre.app.current_mode == "overview"


async def test_y_copies_the_join_command(centre: Centre) -> None:
    await pairing(centre)
    await centre.pilot.press("y")
    await centre.pilot.pause()
    assert centre.app.clipboard.endswith("--code RIVER-STONE-4071")


async def test_the_embedded_hub_is_said_to_need_a_person(node: FakeNode) -> None:
    async with running(FakeNode(2, expires=False), size=(80, 24)) as centre:
        await pairing(centre)
        await centre.until("instar hub git@host:me/agent-state.git")
        assert "attempts ●●●" in centre.text()


async def test_a_code_of_a_machine_that_sleeps_now_is_void_and_it_says_what_to_do(centre: Centre) -> None:
    await pairing(centre)
    centre.node.falls_asleep()
    await centre.until("The code is void.")
    await centre.until("mini is the awake machine now")
    await centre.until("press p on mini")
    text = centre.text()
    assert "RIVER" not in text
    assert "left" not in text
    assert " new code" not in text, "it would be refused"
    assert " wake here" in text
    await centre.go("overview")
    await centre.go("pair")
    await centre.until("this machine is not awake")
    await centre.until("press p on mini")
    await centre.pilot.press("w")
    await centre.until("instar join http://192.168.1.20:7707 --code RIVER-STONE-4071")
