"""One drill: every component tried out with one machine, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from instar_node.clock import MICROS_PER_MS, Clock
from instar_node.contracts import Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.verification.components import COMPONENTS
from instar_node.verification.report import StepResult

log = logging.getLogger("instar.verification")

STEP_S = 20.0
"""No step takes longer; their own limits are tighter."""
AGAIN_S = 0.5
"""Pause before a step that failed is tried again."""
FOUNDATIONS = frozenset({"tunnel", "updates"})
"""When one of these fails, nothing that follows would tell anything."""
NOTHING_SAID = frozenset({"not-awake", "not-source", "lease-lost", "handoff-running", "not-holder"})
"""Refusals that tell of a change of holder in the middle of the drill, not of a component."""
LONGEST_FINDING = 400

Probe = Callable[[str], Awaitable[str]]
"""Tries one component with a machine: the evidence. Raises what is wrong (``InstarError``, ``PeerError``)."""
Told = Callable[[StepResult], None]


class Outcome(msgspec.Struct, frozen=True):
    """The components decided, and why the drill ended before the others."""

    steps: tuple[StepResult, ...]
    unfinished: str
    took_ms: float


async def run_drill(
    probes: Mapping[str, Probe], machine: str, mesh: Mesh, clock: Clock, told: Told
) -> Outcome:
    """Try every component there is a probe for; ``told`` hears of each as soon as it is decided.

    A machine that goes away, and a lease that moves, decide nothing: the drill is then unfinished.
    """
    began, steps, unfinished = clock.now(), list[StepResult](), ""
    for component in COMPONENTS:
        probe = probes.get(component.name)
        if probe is None:
            continue
        result = await _try_twice(component.name, probe, machine, mesh, clock)
        if isinstance(result, str):
            unfinished = result
            break
        steps.append(result)
        told(result)
        if not result.passed and component.name in FOUNDATIONS:
            unfinished = f"nothing else was tried without the {component.name}"
            break
    return Outcome(tuple(steps), unfinished, (clock.now() - began) / MICROS_PER_MS)


async def _try_twice(
    component: str, probe: Probe, machine: str, mesh: Mesh, clock: Clock
) -> StepResult | str:
    """One component; a plain text when nothing could be decided, and why.

    What fails is tried a second time before it counts: a machine that was busy for a moment is not broken.
    """
    first = await attempt(component, probe, machine, mesh, clock)
    if isinstance(first, str) or first.passed:
        return first
    log.info("drill with %s: %s failed (%s); once more", machine, component, first.finding)
    await clock.sleep(AGAIN_S)
    return await attempt(component, probe, machine, mesh, clock)


async def attempt(component: str, probe: Probe, machine: str, mesh: Mesh, clock: Clock) -> StepResult | str:
    """One component, tried once; a plain text when nothing could be decided, and why."""
    began = clock.now()
    passed = False
    try:
        async with asyncio.timeout(STEP_S):
            finding = await probe(machine)
        passed = True
    except (InstarError, PeerError) as error:
        if error.code in NOTHING_SAID or not mesh.connected(machine):
            return f"{component} could not be tried: {error.message}"
        finding = error.message
    except TimeoutError:
        finding = f"no end within {STEP_S:g} s"
    except Exception as error:
        log.exception("the drill of %s with %s broke", component, machine)
        finding = f"{type(error).__name__}: {error}"
    if not passed and not mesh.connected(machine):
        return f"{component} could not be tried: the machine went away"
    took = (clock.now() - began) / MICROS_PER_MS
    return StepResult(component, passed, finding[:LONGEST_FINDING], took)
