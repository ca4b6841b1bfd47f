"""Holds a real node at a named point of its work, so that a test can break things at exactly that instant.

Python imports a module of this name at start when its folder is on ``PYTHONPATH``; only a daemon with
``INSTAR_HOLD`` in its environment does anything with it. That names a folder: once a file ``armed`` is there,
the node stands still at the first point with the name in it, and goes on when the file, which it has renamed
to ``reached``, is gone. Nothing of this is in the product: only its public functions are wrapped.

Points: ``before KIND`` and ``durable KIND`` of an entry of the message log (not written yet; synced, and
nobody told), ``acknowledged`` (about to be said to who sent the message), ``send`` and ``sent`` (one delivery
to the webhook), ``handoff STEP`` (on the machine that hands over, and on the one that follows it).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOK_S = 0.002


def hold_at(point: str) -> None:
    """Stand still here if a test wants it."""
    armed, reached = FOLDER / "armed", FOLDER / "reached"
    try:
        if armed.read_text() != point:
            return
        armed.rename(reached)
    except OSError:
        return
    while reached.exists():
        time.sleep(LOOK_S)


def before_and_after(before: Callable[..., None], after: Callable[..., None]) -> Callable[[Any], Any]:
    """Decorate a coroutine function with what is called around it."""

    def decorate(function: Any) -> Any:
        async def wrapped(*args: Any, **more: Any) -> Any:
            before(*args)
            result = await function(*args, **more)
            after(*args)
            return result

        return wrapped

    return decorate


def nothing(*args: Any) -> None:
    """Where there is no point."""


def wrap() -> None:
    """Put the points into the public functions of the product."""
    from instar_node.delivery import tables
    from instar_node.delivery.channels.webhook import WebhookChannel
    from instar_node.delivery.dispatcher import Delivery
    from instar_node.delivery.log import ReplicatedLog
    from instar_node.events import EventHub

    insert_log, publish = tables.insert_log, EventHub.publish

    def insert(connection: Any, rows: Any) -> None:
        rows = list(rows)
        for row in rows:
            hold_at(f"before {row[2]}")
        insert_log(connection, rows)

    def published(self: Any, kind: str, text: str = "", **data: Any) -> Any:
        event = publish(self, kind, text, **data)
        if kind == "handoff" and "step" in data:
            hold_at(f"handoff {data['step']}")
        return event

    def watch(ledger_log: Any) -> None:
        ledger_log.on_durable(lambda outcome: [hold_at(f"durable {entry.kind}") for entry in outcome.entries])

    tables.insert_log, EventHub.publish = insert, published
    ReplicatedLog.load = before_and_after(watch, nothing)(ReplicatedLog.load)
    Delivery.submit = before_and_after(nothing, lambda *args: hold_at("acknowledged"))(Delivery.submit)
    around = before_and_after(lambda *args: hold_at("send"), lambda *args: hold_at("sent"))
    WebhookChannel.send = around(WebhookChannel.send)


if "INSTAR_HOLD" in os.environ and "--daemon" in sys.orig_argv:
    FOLDER = Path(os.environ["INSTAR_HOLD"])
    wrap()
