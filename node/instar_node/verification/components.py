"""What a drill tries out, in order, and what is refused while one of them is known not to work."""

from __future__ import annotations

from typing import Literal

import msgspec

Use = Literal["succession", "handoff", "transfer"]
"""What a gate lets through: being in the electorate, a planned handoff, a topic moved to a machine."""

USES: dict[Use, str] = {
    "succession": "standing by in the electorate",
    "handoff": "handing the awake role over",
    "transfer": "moving topics to it",
}
"""As people read them."""


class Component(msgspec.Struct, frozen=True):
    """One component: its name in results and gates, what the drill does, and the uses it is needed for."""

    name: str
    shows: str
    guards: frozenset[Use]


_ALL: frozenset[Use] = frozenset(("succession", "handoff", "transfer"))
_TAKING_OVER: frozenset[Use] = frozenset(("succession", "handoff"))

COMPONENTS: tuple[Component, ...] = (
    Component("tunnel", "16 KiB go through the tunnel and come back the same", _ALL),
    Component("updates", "both tell the same versions and share a protocol", _ALL),
    Component("lease", "the machine promises for the lease as it is", _TAKING_OVER),
    Component("livetail", "a push is written and acknowledged after all that was said", _ALL),
    Component("delivery", "reply markers are written and acknowledged", _ALL),
    Component("fencing", "what is sent in an epoch that is over is refused", _ALL),
    Component("transfer", "both know the same placements; old orders are refused", frozenset(("transfer",))),
    Component("handoff", "the awake role goes there and back", frozenset(("handoff",))),
)
"""In the order in which they are tried: the later ones need the earlier ones."""

BY_NAME = {component.name: component for component in COMPONENTS}


def needed_for(use: Use) -> list[str]:
    """The components without which something is not done, in order."""
    return [component.name for component in COMPONENTS if use in component.guards]
