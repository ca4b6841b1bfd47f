"""Where the topics run, as a file of the state: a copy for people and auditors, never read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from instar_node.contracts import Placement
from instar_node.events import Event, EventHub

PINS_FILE = "pins/topics.json"
_MOVES = frozenset({"transfer", "placement", "pool"})
"""Events after which a topic may have another place."""


class PinsCopy:
    """The file, made anew only after something moved."""

    def __init__(self, placements: Callable[[], Iterable[Placement]], events: EventHub) -> None:
        self._placements = placements
        self._made: bytes | None = None
        events.listen(self._on_event)

    def files(self) -> Mapping[str, bytes]:
        """Path and content. Only what a person decided: a topic that was merely placed may move any time."""
        if self._made is None:
            pinned = {
                placement.topic: {
                    "pinned_to": placement.pinned_to,
                    "epoch": placement.epoch,
                    "n": placement.n,
                }
                for placement in self._placements()
                if placement.pinned_to is not None
            }
            encoded = msgspec.json.encode(pinned, order="sorted")
            self._made = msgspec.json.format(encoded, indent=1) + b"\n"
        return {PINS_FILE: self._made}

    def _on_event(self, event: Event) -> None:
        if event.kind in _MOVES:
            self._made = None
