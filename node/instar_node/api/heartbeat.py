"""Once a second: standbys hear what only the holder knows, people what went wrong, screens that we live."""

from __future__ import annotations

from instar_node.api.alerts import alerts_of
from instar_node.api.news import TailPicture
from instar_node.api.parts import NodeParts
from instar_node.api.views import Views
from instar_node.background import Background
from instar_node.clock import MICROS_PER_MS

EVERY_S = 1.0


class Heartbeat:
    """Publishes ``pulse`` while somebody watches, ``alert`` when alerts come or go, and the tail's news."""

    def __init__(self, parts: NodeParts, views: Views, tail: TailPicture) -> None:
        self._parts = parts
        self._views = views
        self._tail = tail
        self._alerts: dict[str, str] = {}
        self._seen: dict[str, str] = {}
        self._task = Background("heartbeat", self._run)

    def start(self) -> None:
        """Begin to beat."""
        self._task.start()

    async def stop(self) -> None:
        """Stop beating."""
        await self._task.stop()

    async def _run(self) -> None:
        while True:
            await self.beat()
            await self._parts.base.clock.sleep(EVERY_S)

    async def beat(self) -> None:
        """One beat."""
        base = self._parts.base
        if await self._tail.tell(self._views.others()):
            base.events.publish("livetail", "", head_seq=self._parts.tail.buffer.head.seq)
        self._tell_alerts()
        if base.events.watched:
            left = base.lease.snapshot().valid_for_us // MICROS_PER_MS
            base.events.publish("pulse", "", epoch=base.lease.epoch, valid_for_ms=left)

    def _tell_alerts(self) -> None:
        """Tell what has been so for two beats: a restart, or a tunnel made anew, alarms nobody."""
        events = self._parts.base.events
        seen = {f"{alert.code}: {alert.message}": alert.code for alert in alerts_of(self._parts)}
        now = {text: code for text, code in seen.items() if text in self._seen or text in self._alerts}
        self._seen = seen
        for text in now.keys() - self._alerts.keys():
            events.publish("alert", text.partition(": ")[2], code=now[text])
        for text in self._alerts.keys() - now.keys():
            code = self._alerts[text]
            if code not in now.values():
                events.publish("alert", f"over: {text.partition(': ')[2]}", code=code, over=True)
        self._alerts = now
