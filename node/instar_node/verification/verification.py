"""``Verification``: runs drills, keeps and spreads their results, and says which gates are open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from instar_node.build import Build
from instar_node.clock import Clock, iso
from instar_node.contracts import Authority, Lane, Members, Mesh, PeerError
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.verification.components import COMPONENTS, Use, needed_for
from instar_node.verification.drill import Outcome, Probe, attempt, run_drill
from instar_node.verification.gates import (
    Choice,
    Override,
    Overrides,
    Subject,
    Verdict,
    check_gate,
    judge,
    refusal,
)
from instar_node.verification.messages import Echo, Echoed, ResultsNews, ResultsTaken
from instar_node.verification.report import DrillReport, Signer, StepResult
from instar_node.verification.results import ResultStore

log = logging.getLogger("instar.verification")

SPREAD_S = 5.0
REPORTS_A_MESSAGE = 32


class Verification:
    """Drills of this machine, and what is known of those of others.

    Only the awake machine runs a drill, and one at a time; gates are judged on every machine from the same
    signed reports.
    """

    def __init__(
        self,
        *,
        store: ResultStore,
        probes: Mapping[str, Probe],
        there_and_back: Probe,
        held_by: Callable[[int], str | None],
        build: Build,
        sign: Signer,
        mesh: Mesh,
        members: Members,
        authority: Authority,
        clock: Clock,
        events: EventHub,
    ) -> None:
        """``there_and_back`` moves the awake role to a machine and back, when a person asks for a drill;
        ``held_by(epoch)`` is who was awake in an epoch, as far as it is known here."""
        self.store = store
        self._probes = probes
        self._there_and_back = there_and_back
        self._held_by = held_by
        self._build = build
        self._sign = sign
        self._mesh = mesh
        self._members = members
        self._authority = authority
        self._clock = clock
        self._events = events
        self._busy = asyncio.Lock()
        self._on_change: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        mesh.on_request(Echo, self._on_echo)
        mesh.on_request(ResultsNews, self._on_news)
        mesh.on_peer(self._on_peer)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be called when results or decisions have changed."""
        self._on_change.append(callback)

    async def stop(self) -> None:
        """Tell nobody anything more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- drills -----------------------------------------------------------------------------------------

    async def drill(self, machine: str, *, live: bool, asked: bool = True) -> list[DrillReport]:
        """Try every component with a machine; ``live`` then moves the awake role there and back.

        The live handoff gets a report of its own, and only follows a drill in which everything worked. Of a
        drill that nobody ``asked`` for, people are told the end and what does not work. One drill runs at a
        time; another waits for it. Raises ``InstarError("not-awake")``; what is wrong with the other machine
        is in the reports.
        """
        async with self._busy:
            if self._authority.acting_epoch() is None:
                raise InstarError("not-awake", "only the awake machine runs drills", "ask that one")
            drill = self._clock.token_hex(4)
            told = self._teller(machine, drill, asked)
            outcome = await run_drill(self._probes, machine, self._mesh, self._clock, told)
            report = await self._record(machine, outcome, live=False)
            if not (live and report.passed):
                self._tell_end(report, drill)
                return [report]
            # The other machine must have this result too: its own gate has to let the role come back.
            handoff = await self._move(machine, told)
            self._tell_end(handoff, drill)
            return [report, handoff]

    async def _move(self, machine: str, told: Callable[[StepResult], None]) -> DrillReport:
        began = self._clock.now()
        result = await attempt("handoff", self._there_and_back, machine, self._mesh, self._clock)
        took = (self._clock.now() - began) / 1_000
        if isinstance(result, str):
            return await self._record(machine, Outcome((), result, took), live=True)
        told(result)
        return await self._record(machine, Outcome((result,), "", took), live=True)

    async def _record(self, machine: str, outcome: Outcome, *, live: bool) -> DrillReport:
        """Sign, keep and spread what a drill came to."""
        me, epoch = self._mesh.me, self._authority.epoch
        report = DrillReport(
            runner=me,
            peer=machine,
            epoch=epoch,
            n=self.store.next_n(me, epoch),
            at=iso(self._clock.wall()),
            live=live,
            runner_build=self._build,
            peer_build=self.build_of(machine) or Build("", (0, 0)),
            steps=outcome.steps,
            took_ms=outcome.took_ms,
            unfinished=outcome.unfinished,
        ).signed(self._sign)
        self.store.add((report,))
        self._changed()
        await self._spread(ResultsNews((report,)))
        return report

    def _teller(self, machine: str, drill: str, asked: bool) -> Callable[[StepResult], None]:
        """Publishes each step; all events of one drill carry the same ``drill``."""
        name = self._members.nickname(machine)

        def tell(step: StepResult) -> None:
            word = "works" if step.passed else "FAILED"
            text = f"drill with {name}: {step.component} {word} ({step.finding})"
            silent = step.passed and not asked
            self._events.publish(
                "drill", "" if silent else text, drill=drill, peer=machine, **msgspec.to_builtins(step)
            )

        return tell

    def _tell_end(self, report: DrillReport, drill: str) -> None:
        name, failed = self._members.nickname(report.peer), report.failed
        if failed is not None:
            text = f"drill with {name} failed: {failed.component}: {failed.finding}"
        elif report.unfinished:
            text = f"drill with {name} not finished: {report.unfinished}"
        else:
            text = f"drill with {name} passed"
        self._events.publish("drill", text, drill=drill, peer=report.peer, passed=report.passed, over=True)

    # -- gates ------------------------------------------------------------------------------------------

    def build_of(self, machine: str) -> Build | None:
        """What a machine runs, as far as it was heard since this node's start."""
        if machine == self._mesh.me:
            return self._build
        info = self._mesh.info(machine)
        return Build(info.version, info.protocol) if info is not None and info.version else None

    def verdict(self, component: str, one: str, other: str) -> Verdict:
        """The state of a gate between two machines."""
        override = self.store.overrides.gates.get(component)
        here = self.build_of(one)
        if here is None:
            one, other, here = other, one, self.build_of(other)
        if here is None:
            return Verdict("unverified", "neither machine was heard since this node's start")
        subject = Subject(one, here, other, self.build_of(other))
        return judge(subject, self.store.decisive(component, one, other), override)

    def refusal(self, use: Use, machine: str) -> InstarError | None:
        """Why something may not be done with a machine; ``None`` when it may. This machine always may."""
        if machine == self._mesh.me:
            return None
        verdicts = {name: self.verdict(name, self._mesh.me, machine) for name in needed_for(use)}
        return refusal(use, self._members.nickname(machine), verdicts)

    def require(self, use: Use, machine: str) -> None:
        """Raises ``InstarError("gate-shut")`` when a gate that this needs is shut."""
        if (error := self.refusal(use, machine)) is not None:
            raise error

    def shut_out(self) -> set[str]:
        """Members that a shut gate keeps out of the electorate."""
        others = (m.machine_id for m in self._members.active() if not m.witness)
        return {machine for machine in others if self.refusal("succession", machine) is not None}

    def proven(self, machine: str) -> bool:
        """Whether a drill has decided about every component that is left to drills, and each works."""
        tried = (component.name for component in COMPONENTS if component.name in self._probes)
        return all(
            self.verdict(name, self._mesh.me, machine).state == "open"
            for name in tried
            if name not in self.store.overrides.gates
        )

    async def decide(self, gate: str, state: Choice | None, by: str) -> None:
        """A person opens or shuts a gate for the whole mesh; ``None`` leaves it to the drills again.

        Returns when every machine of the electorate has it. Raises ``unknown-gate``, ``not-awake``,
        ``not-replicated``.
        """
        check_gate(gate)
        epoch = self._authority.acting_epoch()
        if epoch is None:
            raise InstarError("not-awake", "only the awake machine decides about gates", "ask that one")
        word = None if state is None else Override(state, by, iso(self._clock.wall()))
        overrides = self.store.overrides.changed(gate, word, self._mesh.me, epoch).signed(self._sign)
        self.store.set_overrides(overrides)
        text = f"gate {gate}: " + (f"{state} by hand" if state else "left to the drills")
        self._events.publish("drill", text, gate=gate, state=state)
        self._changed()
        missed = await self._spread(ResultsNews((), overrides)) & self._authority.ack_set()
        if missed:
            names = ", ".join(sorted(self._members.nickname(machine) for machine in missed))
            raise InstarError(
                "not-replicated",
                f"it holds here, and {names} did not take it in time",
                f"it is told to {names} again with the next connection",
                status=503,
            )

    # -- between machines -------------------------------------------------------------------------------

    async def _spread(self, news: ResultsNews) -> set[str]:
        """Tell every machine; returns those that did not take it."""
        others = [m.machine_id for m in self._members.active() if m.machine_id != self._mesh.me]
        taken = await asyncio.gather(*(self._tell(machine, news) for machine in others))
        return {machine for machine, took in zip(others, taken, strict=True) if not took}

    async def _tell(self, machine: str, news: ResultsNews) -> bool:
        try:
            await self._mesh.request(machine, news, ResultsTaken, within=SPREAD_S, lane=Lane.BULK)
        except PeerError as error:
            log.info("drill results not taken by %s: %s", machine, error)
            return False
        return True

    def _on_peer(self, machine: str, up: bool) -> None:
        """A machine that was away gets the results of this one, and the decisions in force."""
        if up:
            self._spawn(self._bring_up_to_date(machine))

    async def _bring_up_to_date(self, machine: str) -> None:
        own = [r for r in self.store.authentic if self._mesh.me in (r.runner, r.peer)]
        overrides: Overrides | None = self.store.overrides if self.store.overrides.n else None
        for start in range(0, len(own) or 1, REPORTS_A_MESSAGE):
            page = tuple(own[start : start + REPORTS_A_MESSAGE])
            if page or overrides is not None:
                await self._tell(machine, ResultsNews(page, overrides))

    async def _on_echo(self, peer: str, echo: Echo) -> Echoed:
        return Echoed(echo.data, self._mesh.me, self._build)

    async def _on_news(self, peer: str, news: ResultsNews) -> ResultsTaken:
        members = (report for report in news.reports if self._members.get(report.peer) is not None)
        changed = self.store.add(members)
        if news.overrides is not None and self._is_by_a_holder(news.overrides):
            changed = self.store.set_overrides(news.overrides) or changed
        if changed:
            self._changed()
        return ResultsTaken()

    def _is_by_a_holder(self, overrides: Overrides) -> bool:
        """Only an awake machine decides about gates, and none has been awake in an epoch yet to come."""
        holder = self._held_by(overrides.epoch)
        return overrides.epoch <= self._authority.epoch and holder in (None, overrides.holder)

    def _changed(self) -> None:
        for callback in self._on_change:
            callback()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def newest(reports: Iterable[DrillReport]) -> dict[tuple[str, str, str], tuple[DrillReport, StepResult]]:
    """By runner, peer and component: the newest result, from reports newest first."""
    found: dict[tuple[str, str, str], tuple[DrillReport, StepResult]] = {}
    for report in reports:
        for step in report.steps:
            found.setdefault((report.runner, report.peer, step.component), (report, step))
    return found
