"""What updates say between machines."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from instar_node.build import Build

Version = Annotated[str, Meta(max_length=64)]


class UpdateOrder(msgspec.Struct, frozen=True, tag="update.order"):
    """The awake machine to another: install what you are set up to install, and restart into it.

    ``to`` is the version it has to be; empty for whatever is installed.
    """

    to: Version


class UpdateAnswer(msgspec.Struct, frozen=True, tag="update.answer"):
    """``current``: it runs that already. ``restarting``: it is about to restart into ``installed``."""

    state: Literal["current", "restarting"]
    installed: Build
