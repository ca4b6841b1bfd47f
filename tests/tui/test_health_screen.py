"""Health: what is wrong and how to mend it, secrets by name, updates, and only keys that do something."""

from __future__ import annotations

from instar_node.api import types as t
from tests.tui.conftest import Centre, running
from tests.tui.fake_node import ATTIC, DESK, MINI, FakeNode

ALL_OF_IT = (100, 90)
"""High enough for the whole screen."""


def refused() -> t.RefusedCommit:
    return t.RefusedCommit("a1" * 20, "not-holder", "not the holder", "laptop", "2026-11-23T16:58:00.000Z")


async def on_health(centre: Centre) -> None:
    await centre.go("health")
    await centre.until(lambda: centre.app.base_screen().checks.doctor is not None)
    await centre.until(lambda: centre.app.base_screen().checks.secrets is not None)


async def test_the_doctor_tells_what_is_to_be_mended_first_and_how(node: FakeNode) -> None:
    async with running(node, size=ALL_OF_IT) as centre:
        await on_health(centre)
        text = centre.text()
        assert "⚠ disk" in text
        assert "→ free some space" in text
        assert text.index("⚠ disk") < text.index("✔ settings")
        node.findings[1] = t.Finding("disk", "ok", "20 GB free")
        await centre.pilot.press("c")
        await centre.until("the doctor looked again: nothing is broken")
        await centre.until("✔ disk")


async def test_all_is_not_well_while_the_doctor_finds_something_broken(node: FakeNode) -> None:
    node.alerts.clear()
    node.findings[1] = t.Finding("disk", "ok", "20 GB free")
    async with running(node, size=ALL_OF_IT) as centre:
        await on_health(centre)
        await centre.until("all is well")
        node.findings[1] = t.Finding("disk", "problem", "no space left", "free some space")
        await centre.pilot.press("c")
        await centre.until("works, with a flaw")
        assert "all is well" not in centre.text()


def result(component: str, at: str, signed_by: str, nickname: str, took_ms: int) -> t.E2EResult:
    return t.E2EResult(
        component, MINI, "mini", True, at, {}, signed_by, nickname, True, "works", took_ms, took_ms > 100, 7
    )


async def test_of_the_drills_with_a_machine_the_newest_is_shown_in_the_order_of_its_steps(
    node: FakeNode,
) -> None:
    """The results come newest first, and those of every machine that ever ran a drill with it are kept."""
    node.results_ = [
        result("handoff", "2026-11-23T17:00:02.000Z", ATTIC, "attic", 321),
        result("tunnel", "2026-11-23T17:00:01.000Z", ATTIC, "attic", 21),
        result("tunnel", "2026-11-22T08:00:00.000Z", DESK, "desk", 11),
    ]
    async with running(node, size=ALL_OF_IT) as centre:
        await on_health(centre)
        await centre.until("attic with mini")
        text = centre.text()
        assert "desk with mini" not in text
        steps = [line.split() for line in centre.lines() if "works" in line and "✔" in line]
        assert [(step[1], step[2]) for step in steps] == [("tunnel", "21ms"), ("handoff", "0.3s")]


async def test_secrets_are_shown_by_name_with_their_use_and_never_a_value(node: FakeNode) -> None:
    async with running(node, size=ALL_OF_IT) as centre:
        await on_health(centre)
        lines = {words.strip(): words for words in centre.lines()}
        (used,) = [line for line in lines if "API_KEY" in line]
        assert "used by the agent" in used
        (unused,) = [line for line in lines if "OLD_TOKEN" in line]
        assert "not used on this machine" in unused
        assert "tower has left and may still know it: give it a new value" in centre.text()
        assert "telegram asks for BOT_TOKEN, which is not kept" in centre.text()
        assert node.called("secret") == [], "a value was never even asked for"


async def test_keys_that_would_do_nothing_are_not_offered(node: FakeNode) -> None:
    async with running(node) as centre:
        await on_health(centre)
        assert "send it" not in centre.lines()[-1]
        assert "seen" not in centre.lines()[-1]
        await centre.pilot.press("s")
        await centre.until("nothing to decide")
        node.undecided = [t.OutboxItem("o1", "r1", "42", "undecided", 6, "the lease ended", "three")]
        node.sync_.refused = [refused()]
        node.say("sync", "refused")
        await centre.until(lambda: "s send it  d drop it" in centre.lines()[-1])
        await centre.until(lambda: "e seen" in centre.lines()[-1])


async def test_refusals_that_were_looked_at_are_forgotten(node: FakeNode) -> None:
    node.sync_.refused = [refused()]
    async with running(node, size=ALL_OF_IT) as centre:
        await on_health(centre)
        await centre.until("from laptop: not the holder")
        await centre.pilot.press("e")
        await centre.until(lambda: "from laptop" not in centre.text())
        assert len(node.called("sync_seen")) == 1


async def test_an_update_says_what_will_happen_and_waits_for_a_yes(node: FakeNode) -> None:
    node.updates_ = t.Updates("0.1.0", (1, 1), "0.2.0", [], [], None, False, [])
    async with running(node) as centre:
        await on_health(centre)
        await centre.pilot.press("u")
        await centre.until("This machine runs 0.1.0, 0.2.0 is installed.")
        await centre.pilot.press("escape")
        assert node.called("update") == []
        await centre.pilot.press("u")
        await centre.until("Update every machine?")
        await centre.pilot.press("y")
        await centre.until("nothing to update: all run what is installed on them")
        assert len(node.called("update")) == 1


async def test_all_gates_fit_on_a_small_screen_and_a_key_picks(node: FakeNode) -> None:
    names = ("tunnel", "updates", "lease", "livetail", "delivery", "fencing", "transfer", "handoff")
    node.gates_ = [t.GateView(name, "open", "mini: works", "a push", [], None, []) for name in names]
    async with running(node, size=(80, 24)) as centre:
        await on_health(centre)
        await centre.pilot.press("o")
        await centre.until("esc cancels")
        for number, name in enumerate(names, 1):
            assert f" {number}  {name}" in centre.text()
        await centre.pilot.press("8")
        await centre.until("3  leave it to the drills")
        assert "esc cancels" in centre.text()
