"""The event loop the node runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed (the ``speed`` extra), else asyncio's own."""
    if find_spec("uvloop") is None:
        return asyncio.new_event_loop
    from importlib import import_module

    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory
