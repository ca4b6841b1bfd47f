"""One drill: what counts as a result, what is tried again, and what decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from instar_node.clock import SystemClock
from instar_node.contracts import PeerError
from instar_node.errors import InstarError
from instar_node.verification import drill
from instar_node.verification.components import COMPONENTS
from instar_node.verification.drill import Outcome, run_drill
from instar_node.verification.report import StepResult
from tests.unit.fakes_mesh import Net


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "AGAIN_S", 0.0)


class World:
    """desk drills with mini; what each component comes to is scripted."""

    def __init__(self) -> None:
        self.net = Net()
        self.desk = self.net.node("m-desk")
        self.net.node("m-mini")
        self.script: dict[str, list[Exception]] = {}
        self.tried: list[str] = []
        self.told: list[StepResult] = []

    def probe(self, component: str) -> Callable[[str], Awaitable[str]]:
        async def run(machine: str) -> str:
            self.tried.append(component)
            await asyncio.sleep(0)
            errors = self.script.get(component, [])
            if errors:
                error = errors.pop(0)
                if isinstance(error, PeerError) and error.reason == "unreachable":
                    self.net.isolate("m-mini")
                raise error
            return "evidence"

        return run

    async def run(self, *components: str) -> Outcome:
        names = components or tuple(component.name for component in COMPONENTS)
        probes = {name: self.probe(name) for name in names}
        return await run_drill(probes, "m-mini", self.desk, SystemClock(), self.told.append)


def summary(outcome: Outcome) -> list[tuple[str, bool]]:
    return [(step.component, step.passed) for step in outcome.steps]


async def test_every_component_is_tried_in_order_and_told_as_it_is_decided() -> None:
    world = World()
    outcome = await world.run()
    names = [component.name for component in COMPONENTS]
    assert (world.tried, outcome.unfinished) == (names, "")
    assert summary(outcome) == [(name, True) for name in names]
    assert world.told == list(outcome.steps)


async def test_what_fails_is_tried_once_more_before_it_counts() -> None:
    world = World()
    world.script = {
        "lease": [InstarError("no-promise", "busy")],
        "livetail": [InstarError("tail-behind", "slow"), PeerError("refused", "no", "x")],
    }
    outcome = await world.run("tunnel", "lease", "livetail", "delivery")
    assert summary(outcome) == [("tunnel", True), ("lease", True), ("livetail", False), ("delivery", True)]
    assert outcome.steps[2].finding == "no"
    assert world.tried.count("lease") == world.tried.count("livetail") == 2


async def test_without_a_tunnel_nothing_that_follows_is_tried() -> None:
    world = World()
    world.script = {"tunnel": [InstarError("echo-differs", "mangled")] * 2}
    outcome = await world.run()
    assert summary(outcome) == [("tunnel", False)]
    assert "without the tunnel" in outcome.unfinished


@pytest.mark.parametrize(
    "error",
    [
        PeerError("unreachable", "the tunnel broke"),
        InstarError("not-awake", "the lease moved"),
        PeerError("refused", "somebody else is awake", "not-holder"),
    ],
)
async def test_a_machine_that_goes_away_and_a_lease_that_moves_decide_nothing(error: Exception) -> None:
    world = World()
    world.script = {"livetail": [error]}
    outcome = await world.run("tunnel", "lease", "livetail", "delivery")
    assert summary(outcome) == [("tunnel", True), ("lease", True)]
    assert outcome.unfinished.startswith("livetail could not be tried")


async def test_a_probe_that_breaks_or_hangs_is_a_finding_and_no_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drill, "STEP_S", 0.02)
    world = World()
    world.script = {"lease": [ValueError("surprise")] * 2}

    async def hang(machine: str) -> str:
        await asyncio.Event().wait()
        return ""

    probes = {"lease": world.probe("lease"), "livetail": hang}
    outcome = await run_drill(probes, "m-mini", world.desk, SystemClock(), world.told.append)
    assert [step.finding for step in outcome.steps] == ["ValueError: surprise", "no end within 0.02 s"]
    assert not any(step.passed for step in outcome.steps)
