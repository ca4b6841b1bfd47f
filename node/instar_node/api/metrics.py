"""``GET /metrics``: Prometheus text exposition format 0.0.4, written from one picture of the node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from instar_node.api import types as t

Sample = tuple[dict[str, str], float]


def render_metrics(status: t.Status, requests: Mapping[tuple[str, int], int]) -> str:
    """Gauges and counters of ``status``, and the requests served as (route, status) -> count."""
    lines: list[str] = []
    for name, help_text, kind, samples in (*_gauges(status), *_counters(status, requests)):
        lines += [f"# HELP instar_{name} {help_text}", f"# TYPE instar_{name} {kind}"]
        lines += [f"instar_{name}{_labels(labels)} {value:g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


Metric = tuple[str, str, str, Iterable[Sample]]


def _gauges(status: t.Status) -> list[Metric]:
    me, lease = status.me, status.lease
    lags = [({"machine": peer.nickname}, peer.behind) for peer in status.livetail.peers if peer.topic is None]
    return [
        ("info", "This node.", "gauge", [({"machine_id": me.machine_id, "version": me.version}, 1)]),
        ("awake", "1 while this machine may act.", "gauge", [({}, status.health.role == "awake")]),
        ("epoch", "Highest lease epoch known.", "gauge", [({}, lease.epoch)]),
        ("lease_valid_seconds", "Time left to the holder.", "gauge", [({}, lease.valid_for_ms / 1000)]),
        ("hub_reachable", "1 while the hub answers.", "gauge", [({}, lease.hub.reachable)]),
        (
            "split_brain",
            "1 while a split brain is seen.",
            "gauge",
            [({}, status.health.split_brain is not None)],
        ),
        ("alerts", "Alerts shown now.", "gauge", [({}, len(status.health.alerts))]),
        (
            "machine_online",
            "1 while the machine is connected.",
            "gauge",
            [({"machine": machine.nickname}, machine.online) for machine in status.machines],
        ),
        ("topics", "Conversations known.", "gauge", [({}, len(status.topics))]),
        (
            "queued_messages",
            "Messages not answered yet.",
            "gauge",
            [({}, sum(row.queued for row in status.topics))],
        ),
        ("outbox_items", "Replies not delivered yet.", "gauge", [({}, status.outbox)]),
        (
            "livetail_behind_entries",
            "Entries a copy lacks.",
            "gauge",
            [(at, lag.entries) for at, lag in lags],
        ),
        ("livetail_behind_bytes", "Bytes a copy lacks.", "gauge", [(at, lag.bytes) for at, lag in lags]),
        ("livetail_behind_seconds", "Age of a copy.", "gauge", [(at, lag.ms / 1000) for at, lag in lags]),
    ]


def _counters(status: t.Status, requests: Mapping[tuple[str, int], int]) -> list[Metric]:
    counted = {**status.lease.counters, **status.health.counters}
    metrics: list[Metric] = [
        (f"{name.replace('-', '_').replace('.', '_')}_total", f"Counter {name}.", "counter", [({}, value)])
        for name, value in sorted(counted.items())
    ]
    served = [({"route": route, "status": str(code)}, count) for (route, code), count in requests.items()]
    return [*metrics, ("http_requests_total", "Requests served.", "counter", served)]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
