"""What a person can do to the mesh: answered at once on the screen, then settled to what the node says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

from instar_node.coordination.record import epoch_text
from instar_node.errors import InstarError
from instar_tui.screens.modals import YES_NO, AskScreen, Choice, ChoiceScreen, PickScreen
from instar_tui.state import Operation
from instar_tui.widgets.text import shown, span

if TYPE_CHECKING:
    from instar_node.api.types import HandoffResult, Machine, TransferResult, UpdateResult, Updates
    from instar_tui.app import InstarApp

log = logging.getLogger("instar.tui")

POLL_S = 0.1
"""How often the steps of a running handoff are asked for."""
GATE_WISHES: tuple[Literal["open", "shut", "auto"], ...] = ("open", "shut", "auto")


class Operations:
    """The actions behind the keys. Each starts a task and returns; a refusal becomes a toast."""

    def __init__(self, app: InstarApp) -> None:
        self._app = app
        self._mesh = app.mesh
        self._last_transfer = ""

    # -- roles --------------------------------------------------------------------------------------------

    def wakeup(self, *, force: bool = False) -> None:
        """Make this machine the awake one."""
        me = self._mesh.me()
        if me is not None and me.role == "awake" and not force and self._mesh.link == "live":
            self._app.notify(f"{shown(me.nickname)} is already awake", markup=False)
            return
        self._start(self._wakeup(force))

    async def _wakeup(self, force: bool) -> None:
        from instar_node.api.types import WakeupRequest

        name = self._mesh.status.me.nickname if self._mesh.status else "this machine"
        body = WakeupRequest(force=force)
        while True:
            try:
                await self._role_change(f"waking up here, on {name}", name, self._mesh.api.wakeup(body))
                return
            except InstarError as error:
                if error.code != "needs-confirmation" or not await self._confirm(error):
                    raise
                body = WakeupRequest(force=True, vouch=_vouched(error))

    def heal(self) -> None:
        """End a split brain from here, after the person has read what was seen."""
        self._start(self._heal())

    async def _heal(self) -> None:
        from instar_node.api.types import HealRequest

        try:
            await self._mesh.api.lease_heal(HealRequest())
        except InstarError as error:
            if error.code != "needs-confirmation" or not await self._confirm(error):
                raise
            call = self._mesh.api.lease_heal(HealRequest(confirm=True, vouch=_vouched(error)))
            name = self._mesh.status.me.nickname if self._mesh.status else "this machine"
            await self._role_change(f"healing from {name}", name, call)

    def hand_off(self, chosen: Machine | None) -> None:
        """Make another machine the awake one; asks which, when that is not clear."""
        self._start(self._hand_off(chosen))

    async def _hand_off(self, chosen: Machine | None) -> None:
        from instar_node.api.types import HandoffRequest

        target = chosen if chosen is not None and chosen.role != "awake" else None
        if target is None:
            choices = [m for m in self._mesh.machines() if m.role == "standby"]
            target = await self._pick_machine("hand off to", choices)
        if target is None:
            return
        call = self._mesh.api.handoff(HandoffRequest(to=target.machine_id))
        await self._role_change(f"handing off to {target.nickname}", target.nickname, call)

    async def _role_change(self, title: str, target: str, call: Awaitable[HandoffResult]) -> None:
        operation = self._begin("handoff", title, target=target)
        task = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({task}, timeout=POLL_S))[0]:
                operation.steps = [(s.step, s.at_ms) for s in (await self._mesh.api.handoff_view()).steps]
                self._app.publish("operation")
            result = task.result()
        except Exception as error:
            self._end(operation, "failed", str(error))
            raise
        finally:
            task.cancel()
        await self._mesh.refresh()
        operation.steps = [(step.step, step.at_ms) for step in result.steps]
        operation.took_ms = result.took_ms
        if result.outcome in ("awake", "already-awake"):
            holder = result.holder_nickname or target
            self._end(operation, "done", f"{holder} is awake, epoch {epoch_text(result.epoch)}")
        else:
            self._end(operation, "failed", result.reason or result.outcome)
            self._toast_failure(result.reason or f"the handoff was {result.outcome}", "nothing is lost")

    # -- topics -------------------------------------------------------------------------------------------

    def transfer(self, topic: str, to: str = "") -> None:
        """Move a topic; without ``to`` to the other machine, or to the one picked by a digit."""
        self._start(self._transfer(topic, to))

    async def _transfer(self, topic: str, to: str) -> None:
        if not to:
            row = next((r for r in self._mesh.topics() if r.topic == topic), None)
            owner = row.owner if row else None
            choices = [
                m for m in self._mesh.machines() if m.machine_id != owner and m.role in ("awake", "standby")
            ]
            target = await self._pick_machine(f"move {topic} to", choices)
            if target is None:
                return
            to = target.nickname
        await self._move(topic, to)

    def undo_transfer(self, topic: str = "") -> None:
        """Take the last transfer back."""
        topic = topic or self._last_transfer
        if not topic:
            self._app.notify("nothing was transferred yet", severity="warning")
            return
        self._start(self._move(topic, "", undo=True))

    async def _move(self, topic: str, to: str, *, undo: bool = False) -> None:
        from instar_node.api.types import TransferRequest

        title = f"taking {topic} back" if undo else f"moving {topic} to {to}"
        operation = self._begin("transfer", title, topic=topic, target=to)
        self._mesh.moving[topic] = to or "…"
        self._app.publish("operation")
        confirm: str | None = None
        try:
            while True:
                try:
                    body = TransferRequest(topic=topic, to=to, confirm=confirm, undo=undo)
                    result = await self._mesh.api.transfer(body)
                    break
                except InstarError as error:
                    if error.code != "needs-confirmation" or not await self._confirm(error):
                        raise
                    confirm = str(error.extra.get("confirm", ""))
        except Exception as error:
            self._end(operation, "failed", str(error))
            raise
        finally:
            self._mesh.moving.pop(topic, None)
            self._app.publish("operation")
        self._last_transfer = "" if undo else topic
        self._settle(operation, result)
        await self._mesh.refresh()

    def _settle(self, operation: Operation, result: TransferResult) -> None:
        operation.steps = [(step.step, step.at_ms) for step in result.steps]
        operation.took_ms = result.took_ms
        where = result.owner_nickname or "nowhere yet"
        if result.outcome == "queued":
            self._end(
                operation, "done", f"{result.topic} waits: {result.pending_reason or 'the target is away'}"
            )
        elif result.outcome == "noop":
            self._end(operation, "done", f"{result.topic} is already on {where}")
        else:
            self._end(operation, "done", f"{result.topic} runs on {where}")

    def unpin(self, topic: str) -> None:
        """Let the mesh place a topic again."""

        async def run() -> None:
            from instar_node.api.types import UnpinRequest

            view = await self._mesh.api.unpin(UnpinRequest(topic=topic))
            self._app.notify(
                f"{topic} is unpinned; it runs on {view.owner_nickname or 'nothing yet'}", markup=False
            )
            await self._mesh.refresh()

        self._start(run())

    def move_hub(self) -> None:
        """Ask for a hub and move the lease there."""

        async def run() -> None:
            from instar_node.api.types import HubRequest

            status = self._mesh.status
            here = status.lease.hub.url if status is not None else ""
            url = await self._app.push_screen_wait(AskScreen("Move the lease to", here, max_length=2_048))
            if not url or url == here:
                return
            moved = await self._mesh.api.move_hub(HubRequest(url=url))
            self._app.notify(f"the lease lies in {shown(moved.url)} ({moved.kind}) now", markup=False)
            for machine in moved.unreachable:
                text = f"{shown(machine.nickname)} could not confirm that it can use it: {shown(machine.why)}"
                self._app.notify(text, severity="warning", markup=False, timeout=8)
            await self._mesh.refresh()

        self._start(run())

    # -- machines -----------------------------------------------------------------------------------------

    def rename(self, machine: Machine) -> None:
        """Ask for a nickname and give it."""

        async def run() -> None:
            from instar_node.api.types import RenameRequest

            name = await self._app.push_screen_wait(
                AskScreen(f"New nickname of {machine.nickname}", machine.nickname)
            )
            if name and name != machine.nickname:
                await self._mesh.api.rename(machine.machine_id, RenameRequest(nickname=name))
                await self._mesh.refresh()

        self._start(run())

    def remove(self, machine: Machine) -> None:
        """Take a machine out of the mesh, after a yes."""

        async def run() -> None:
            question = ChoiceScreen(
                f"Remove {machine.nickname} from the mesh?",
                (
                    f"{machine.nickname} ({machine.fingerprint}) loses",
                    "its place in the lease and its tunnel; secrets are encrypted anew without it.",
                    "Coming back means pairing again.",
                    "Revoke its git credentials yourself, and rotate the secrets it has read.",
                ),
                YES_NO,
                danger=True,
            )
            if await self._app.push_screen_wait(question):
                await self._mesh.api.remove_machine(machine.machine_id)
                self._app.notify(f"{machine.nickname} is removed", markup=False)
                await self._mesh.refresh()

        self._start(run())

    def resolve(self, item: str, action: str) -> None:
        """Send or drop an undecided reply."""

        async def run() -> None:
            from instar_node.api.types import OutboxAction

            body = OutboxAction(action="send" if action == "send" else "drop")
            await self._mesh.api.outbox_resolve(item, body)
            self._app.notify("the reply is sent" if action == "send" else "the reply is dropped")
            await self._mesh.refresh()

        self._start(run())

    # -- trying out ---------------------------------------------------------------------------------------

    def verify(self, machine: str = "", *, rehearse: bool = False) -> None:
        """Run the live drill with a machine, or with all."""
        self._start(self._verify(machine, rehearse))

    async def _verify(self, machine: str, rehearse: bool) -> None:
        from instar_node.api.types import VerifyRequest

        operation = self._begin("drill", f"drill with {machine or 'every machine'}")
        try:
            result = await self._mesh.api.verify(VerifyRequest(machine, rehearse))
        except Exception as error:
            self._end(operation, "failed", str(error))
            raise
        operation.took_ms = sum(drill.took_ms for drill in result.drills)
        operation.steps = []
        failed = next((drill for drill in result.drills if not drill.passed), None)
        names = ", ".join(drill.peer_nickname for drill in result.drills)
        if failed is not None:
            what = f"{failed.failed}: " if failed.failed else ""
            self._end(operation, "failed", f"{failed.peer_nickname}: {what}{failed.finding}")
        else:
            self._end(operation, "done", f"everything works with {names}")
        await self._mesh.refresh()

    def update(self, view: Updates) -> None:
        """Restart every machine into the version that is installed on it, after a yes."""
        self._start(self._update(view))

    async def _update(self, view: Updates) -> None:
        from instar_node.api.types import UpdateRequest

        question = ChoiceScreen("Update every machine?", _update_words(view), YES_NO)
        if not await self._app.push_screen_wait(question):
            return
        operation = self._begin("update", "updating every machine")
        try:
            result = await self._mesh.api.update(UpdateRequest())
        except Exception as error:
            self._end(operation, "failed", str(error))
            raise
        self._end(operation, "failed" if result.outcome == "failed" else "done", _update_result(result))
        self._app.publish("update")

    def set_gate(self, gates: list[str]) -> None:
        """Open or shut a gate by hand, or leave it to the drills again."""
        self._start(self._set_gate(gates))

    async def _set_gate(self, gates: list[str]) -> None:
        from instar_node.api.types import FlagChange

        which = await self._app.push_screen_wait(PickScreen("gate", gates))
        if which is None:
            return
        how = await self._app.push_screen_wait(
            PickScreen(f"{gates[which]}:", ["open by hand", "shut by hand", "leave it to the drills"])
        )
        if how is not None:
            state = GATE_WISHES[how]
            await self._mesh.api.set_flag(FlagChange(gates[which], state))
            self._app.notify(f"gate {gates[which]}: {state}", markup=False)
            self._app.publish("drill")

    # -- leaving ------------------------------------------------------------------------------------------

    def quit(self, *, ask: bool) -> None:
        """Leave the program; an embedded, awake node with a standby asks what becomes of the lease."""
        me, standbys = self._mesh.me(), self._mesh.standbys()
        awake = me is not None and me.role == "awake" and self._mesh.embedded
        if awake and standbys:
            nearest = min(standbys, key=lambda m: (not m.electorate, m.lag.ms if m.lag else 0))
            self._start(self._quit_awake(nearest))
        elif ask:
            self._start(self._quit_plain())
        else:
            self._app.exit()

    async def _quit_plain(self) -> None:
        stops = (
            "The node of this machine stops with it."
            if self._mesh.embedded
            else "The daemon goes on without it."
        )
        question = ChoiceScreen("Leave the control centre?", (stops,), YES_NO)
        if await self._app.push_screen_wait(question):
            self._app.exit()

    async def _quit_awake(self, standby: Machine) -> None:
        lost = self._mesh.status.lease.if_lost if self._mesh.status else None
        if lost is not None and lost.next is not None:
            stay = Choice("l", "just leave", "leave")
            after = (
                "Just leaving: the lease goes to a standby that is in sync; if none is, "
                f"{lost.next_nickname} takes over by itself after {span(lost.after_ms)}."
            )
        else:
            stay = Choice("k", "leave, and keep the awake role here", "keep")
            why = lost.why_not if lost else "there is no standby"
            after = f"Keeping the role: nobody answers until you come back ({why})."
        answer = await self._app.push_screen_wait(
            ChoiceScreen(
                "This machine is awake. Who answers when you leave?",
                ("The node runs inside this program and stops with it.", after),
                (
                    Choice("h", f"hand off to {standby.nickname}, then leave", "handoff"),
                    stay,
                    Choice("escape", "stay", ""),
                ),
            )
        )
        if answer == "handoff":
            await self._hand_off(standby)
        done = self._mesh.operation is not None and self._mesh.operation.outcome == "done"
        self._mesh.keep_baton = answer == "keep" or None
        if answer in ("leave", "keep") or (answer == "handoff" and done):
            self._app.exit()

    # -- plumbing -----------------------------------------------------------------------------------------

    async def _pick_machine(self, title: str, choices: list[Machine]) -> Machine | None:
        if not choices:
            self._app.notify("there is no other machine for that", severity="warning")
            return None
        if len(choices) == 1:
            return choices[0]
        index = await self._app.push_screen_wait(PickScreen(title, [m.nickname for m in choices]))
        return None if index is None else choices[index]

    async def _confirm(self, error: InstarError) -> bool:
        prompt = str(error.extra.get("prompt") or error.message)
        question = ChoiceScreen("Go on?", tuple(filter(None, (*prompt.split("\n"), error.hint))), YES_NO)
        answer: str = await self._app.push_screen_wait(question)
        return bool(answer)

    def _begin(self, kind: str, title: str, *, topic: str = "", target: str = "") -> Operation:
        newest = self._mesh.events[-1].n if self._mesh.events else 0
        operation = Operation(kind, title, self._mesh.now_ms(), topic=topic, target=target, since=newest)
        operation.epoch = self._mesh.status.lease.epoch if self._mesh.status else 0
        self._mesh.operation = operation
        self._app.publish("operation")
        return operation

    def _end(self, operation: Operation, outcome: str, result: str) -> None:
        operation.outcome = "done" if outcome == "done" else "failed"
        operation.result = result
        if outcome == "done":
            operation.title, operation.result = result, ""
        if not operation.took_ms:
            operation.took_ms = float(self._mesh.now_ms() - operation.started)
        self._app.publish("operation")

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` as a task of its own; what it raises is shown."""
        self._start(work())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._app.run_worker(self._guard(work), group="operations", exit_on_error=False)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except InstarError as error:
            self._toast_failure(error.message, error.hint)
        except (OSError, TimeoutError) as error:
            self._toast_failure(
                str(error) or type(error).__name__, "the node did not answer; it may have done it"
            )
        except Exception as error:
            log.exception("an action failed")
            self._toast_failure(
                f"{type(error).__name__}: {error}", "this is a defect; the log has the details"
            )

    def _toast_failure(self, message: str, hint: str) -> None:
        text = shown(message) + (f"\n{shown(hint)}" if hint else "")
        self._app.notify(text, severity="error", markup=False, timeout=8)


def _vouched(question: InstarError) -> list[str]:
    """The machines that a person who says yes vouches for."""
    vouch = question.extra.get("vouch")
    return [str(machine) for machine in vouch] if isinstance(vouch, list) else []


def _update_words(view: Updates) -> tuple[str, ...]:
    """What an update will do, before anybody says yes."""
    installed = view.installed or view.version
    here = f"runs {view.version}" + (f", {installed} is installed" if installed != view.version else "")
    held = sum(machine.held_back is not None for machine in view.machines)
    return tuple(
        filter(
            None,
            (
                "Each machine that can be reached installs what its [update] command says, if it has one, "
                "and restarts where another version is installed than runs.",
                "First the standbys, then the awake role moves to one of them, then the last machine.",
                f"This machine {here}.",
                f"{held} of {len(view.machines)} machines are held back by their version now."
                if held
                else "",
            ),
        )
    )


def _update_result(result: UpdateResult) -> str:
    words = {
        "updated": "every machine that can be reached runs what is installed on it",
        "nothing-to-do": "nothing to update: all run what is installed on them",
        "restarting": "the others are updated; this machine restarts now",
        "failed": "the update stopped",
    }[result.outcome]
    return f"{words} ({result.reason})" if result.reason else words
