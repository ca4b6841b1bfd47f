"""Ending the work on messages before the awake role leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instar_node.handoff.ports import Ingress

LOOK_S = 0.005
"""How often it is looked whether only messages are left that wait for a machine."""


async def drain(ingress: Ingress, waiting: Callable[[str], int], within: float) -> bool:
    """Let agents at work come to their end; what remains after ``within`` seconds is cancelled and runs again
    on the next holder.

    ``waiting(topic)`` says whether a topic's message waits for its machine: no agent is at work on it, it may
    wait for days, and it waits as well on the next holder, so the handoff does not wait for it. Returns
    whether everything else finished.
    """
    draining = asyncio.ensure_future(ingress.drain(within))
    try:
        while not draining.done():
            running = ingress.running
            if running and all(waiting(topic) for topic in running):
                await ingress.drain(0.0)
            await asyncio.wait({draining}, timeout=LOOK_S)
        return draining.result()
    finally:
        draining.cancel()
