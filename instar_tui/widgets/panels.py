"""The sentence about the lease that several screens share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.live import Line
from instar_tui.widgets.text import clock, shown, span

if TYPE_CHECKING:
    from instar_node.api.types import LeaseView
    from instar_tui.state import MeshState


def awake_line(mesh: MeshState, *, brief: bool = False) -> Line:
    """Who is awake, since when, and on whose evidence."""
    status = mesh.status
    if status is None:
        return [("Starting the node…" if mesh.link == "connecting" else "There is no node to ask.", "$muted")]
    lease = status.lease
    if lease.state == "split-brain":
        return [
            ("The lease was seen to contradict itself", "bold $danger"),
            ("; everybody has stopped until a person decides.", ""),
        ]
    if lease.holder is None or lease.state in ("expired", "released", "closed", "none"):
        return [
            ("Nobody is awake", "bold $needs-you"),
            (f" ({lease.state}). ", ""),
            ("w", "bold $awake"),
            (" wakes this machine.", ""),
        ]
    holder = shown(lease.holder_nickname or lease.holder)
    line: Line = [(holder, "bold $awake"), (" is awake", "")]
    if lease.since is not None:
        since_ms = None if lease.since_ms is None else lease.since_ms + mesh.elapsed_ms()
        line += [(" since ", ""), (clock(lease.since)[:5], "bold"), (f" ({span(since_ms)})", "$muted")]
    return [*line, (", ", ""), *_evidence(mesh, lease, brief), (".", "")]


def _evidence(mesh: MeshState, lease: LeaseView, brief: bool) -> Line:
    promisers = [
        shown(row.nickname) for row in lease.evidence if row.in_electorate and row.promised_ms_ago is not None
    ]
    if not lease.expires:
        if lease.hub.kind == "embedded":
            return [("and keeps the lease until it hands it on", "")]
        return [("alone in the electorate, so nothing needs renewing", "")]
    if lease.renewed_ms_ago is None:
        return [("as the register says", "")]
    renewed = span((lease.renewed_ms_ago + mesh.elapsed_ms()) // 100 * 100)
    by = f" by {'' if brief else 'promises of '}{', '.join(promisers)}" if promisers else ""
    return [(f"renewed {renewed} ago{by}", "")]


def lost_line(mesh: MeshState) -> Line:
    """What would happen if the holder died now."""
    status = mesh.status
    if status is None or status.lease.holder is None or status.lease.state not in ("held", "observed"):
        return [("", "")]
    lost = status.lease.if_lost
    if lost.next is None:
        why = shown(lost.why_not or "nobody could take over")
        return [("If it died now: ", "$muted"), ("nobody takes over", "bold $needs-you"), (f" – {why}", "")]
    lag = next((m.lag for m in status.machines if m.machine_id == lost.next), None)
    line: Line = [
        ("If it died now: ", "$muted"),
        (shown(lost.next_nickname or lost.next), "bold $standby"),
        (f" answers after {span(lost.after_ms)}", ""),
    ]
    if lag is not None:
        behind = "with everything" if lag.entries == 0 else f"with everything up to {span(lag.ms)} ago"
        line.append((f" {behind}", ""))
    return [*line, (".", "")]


class Sentence(Framed):
    """The question that is always answered: who is awake, and what if it died now."""

    DEFAULT_CSS = "Sentence { text-wrap: wrap; padding: 0 1; }"

    def build(self, width: int) -> Iterable[Line]:
        yield awake_line(self.mesh, brief=width < 90)
        yield lost_line(self.mesh)
        status = self.mesh.status
        if status is not None and status.lease.if_lost.next is None and status.lease.if_lost.hint:
            yield [(shown(status.lease.if_lost.hint), "$muted")]
