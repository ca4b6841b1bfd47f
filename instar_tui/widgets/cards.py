"""What the overview is made of: machines, first steps, facts. Loaded after the first frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.live import Line, heading
from instar_tui.widgets.text import age, ago, fit, plural, shown, span, spark
from instar_tui.widgets.vocabulary import machine_mark

if TYPE_CHECKING:
    from instar_node.api.types import Machine, Status


class Title(Framed):
    """A section title."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def build(self, width: int) -> Iterable[Line]:
        return [heading(self._title, width)]


class Cards(Framed):
    """One line a machine: role, reach, topics, lag and its recent course."""

    def build(self, width: int) -> Iterable[Line]:
        machines = self.mesh.machines()
        yield heading("machines", width, plural(len(machines), "machine") if machines else "")
        for machine in machines:
            yield self._card(machine, width)

    def _card(self, machine: Machine, width: int) -> Line:
        mark = machine_mark(machine)
        line: Line = [
            (f" {mark.glyph} ", mark.style),
            (f"{fit(shown(machine.nickname), 12)} ", "bold" if machine.is_self else ""),
            (f"{fit(mark.word, 11)} ", mark.style),
            (f"{fit(self._reach(machine), 13)} ", "" if machine.online else "$muted"),
            (f"{fit(self._topics(machine), 10)} ", "" if machine.topics else "$muted"),
            *self._lag(machine),
        ]
        if width >= 90:
            line.append((f" {self._course(machine)} ", "$awake" if machine.role == "awake" else "$standby"))
        if width >= 130:
            line.append((f" rtt {fit(span(machine.rtt_ms), 7)} v{fit(shown(machine.version), 8)}", "$muted"))
        note = "" if machine.role == "awake" else shown(machine.status_text)
        line.append((f" {note}", "$muted" if machine.status == "ok" else "$needs-you"))
        return line

    @staticmethod
    def _reach(machine: Machine) -> str:
        if machine.is_self:
            return "this machine"
        if machine.online:
            return f"rtt {span(machine.rtt_ms)}"
        return f"seen {ago(machine.last_seen_ms)}"

    @staticmethod
    def _topics(machine: Machine) -> str:
        return plural(machine.topics, "topic") if machine.topics else "–"

    @staticmethod
    def _lag(machine: Machine) -> Line:
        if machine.role == "awake":
            return [(fit("source", 11), "$muted")]
        if machine.lag is None:
            return [(fit("lag –", 11), "$muted")]
        slow = machine.lag.ms >= 1_000
        return [(fit(f"lag {span(machine.lag.ms)}", 11), "$needs-you" if slow else "")]

    def _course(self, machine: Machine) -> str:
        if machine.role == "awake":
            return spark(list(self.mesh.activity), 16)
        lags = [sample.lag_ms for sample in self.mesh.samples.get(machine.machine_id, ())]
        return spark(lags, 16, ceiling=max([40, *lags[-16:]]))


def _only_from_here(url: str) -> bool:
    host = url.partition("://")[2].rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


class FirstSteps(Framed):
    """Instead of a list of one machine: how to get the second."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        url = status.me.urls[0] if status and status.me.urls else "http://THIS-MACHINE:7707"
        name = shown(status.me.nickname) if status else "this machine"
        yield heading("one machine so far", width)
        yield []
        yield [
            (" This is a mesh of one: ", ""),
            (name, "bold $awake"),
            (" answers, and nobody could take over.", ""),
        ]
        yield [(" Three steps to the second machine:", "")]
        yield []
        yield [
            ("  1 ", "bold $awake"),
            (" there   ", "$muted"),
            ("install instar-tui, the way you did here", ""),
        ]
        yield [
            ("  2 ", "bold $awake"),
            (" here    ", "$muted"),
            ("press ", ""),
            ("p", "bold $awake"),
            (": a code appears, good for two minutes", ""),
        ]
        yield [
            ("  3 ", "bold $awake"),
            (" there   ", "$muted"),
            (f"instar join {shown(url)} --code THE-CODE", "bold"),
        ]
        yield [("    ", ""), ("         and then ", "$muted"), ("instar-tui", "bold")]
        if _only_from_here(url):
            yield []
            yield [
                (" Only this computer reaches this address. To pair another, quit and start", "$needs-you")
            ]
            yield [(" ", ""), ("instar-tui --listen 0.0.0.0:7707", "bold")]
        yield []
        yield [
            (" Meanwhile: ", "$muted"),
            ("5", "bold $awake"),
            (" then ", "$muted"),
            ("n", "bold $awake"),
            (" begins a conversation here.", "$muted"),
        ]


class Facts(Framed):
    """Topics, undecided replies, hub: one line each."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        yield heading("mesh", width)
        yield self._topics(status)
        yield self._hub(status)
        said = status.lease.if_lost.hint  # the sentence above tells it already
        for alert in [a for a in status.health.alerts if not (said and a.hint == said)][:2]:
            yield [(" ⚠ ", "bold $needs-you"), (shown(alert.message), "")]
            if alert.hint:
                yield [("   ", ""), (shown(alert.hint), "$muted")]

    def _topics(self, status: Status) -> Line:
        rows = status.topics
        pinned = sum(row.reason == "pinned" for row in rows)
        waiting = sum(bool(row.pending_reason) or row.reason == "unowned" for row in rows)
        queued = sum(row.queued for row in rows)
        line: Line = [
            (" topics     ", "$muted"),
            (f"{len(rows):,}", "bold"),
            (f"   pinned {pinned} · queued {queued}", "$muted"),
        ]
        if waiting:
            line.append((f" · {waiting} waiting", "$needs-you"))
        line.append(("      undecided replies ", "$muted"))
        line.append((str(status.outbox), "bold $needs-you" if status.outbox else "bold"))
        return line

    def _hub(self, status: Status) -> Line:
        hub = status.lease.hub
        title = (" hub        ", "$muted")
        if hub.kind == "embedded":
            return [title, ("on the awake machine", ""), ("   no automatic failover", "$muted")]
        if not hub.reachable:
            return [title, (f"✕ unreachable: {shown(hub.error or hub.url)}", "$danger")]
        line: Line = [title, ("✔ ", "$awake"), (f"reachable, {span(hub.latency_ms)}", "")]
        if hub.last_write_ms_ago is not None:
            line.append((f", untouched for {age(hub.last_write_ms_ago + self.mesh.elapsed_ms())}", "$muted"))
        return [*line, (f"   {shown(hub.url)}", "$muted")]
