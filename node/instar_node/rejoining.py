"""Joining another mesh from a node that runs: its own mesh, alone and empty, is given up for it."""

from __future__ import annotations

import asyncio

from instar_node.api import types as t
from instar_node.api.parts import NodeParts
from instar_node.delivery.loading import count_messages
from instar_node.joining import Joining
from instar_node.pairing.comparison import Comparison
from instar_node.pairing.host import PairingHost
from instar_node.pairing.refusals import joining_already
from instar_node.storage.database import SqliteDatabase
from instar_node.storage.home import Home
from instar_node.wiring.mesh_change import require_lone

SETTLED_WITHIN_S = 2.0
"""For a message that came in at the same moment."""


class Rejoining:
    """Implements ``api.local.Joiner``. ``superseded`` is set once the home belongs to another mesh: this node
    then takes nothing more, and whoever runs it opens the home anew (see ``serving``)."""

    def __init__(
        self,
        home: Home,
        parts: NodeParts,
        database: SqliteDatabase,
        pairing: PairingHost,
        standing_name: str,
    ) -> None:
        """``standing_name`` as in ``joining.Joining``."""
        self._home = home
        self._parts = parts
        self._database = database
        self._pairing = pairing
        self._standing_name = standing_name
        self.comparison = Comparison(parts.base.clock, parts.base.events)
        self.under_way = False
        self.superseded = asyncio.Event()

    async def join(self, body: t.JoinRequest) -> t.JoinResult:
        """Pair with the machine at ``body.url``; nothing changes unless everything succeeds.

        While it runs no message is taken in and no code is minted, so that the mesh stays empty. Raises what
        ``joining.join_home`` raises.
        """
        if self.under_way:
            raise joining_already()
        self.under_way = True
        delivery = self._parts.delivery.delivery
        try:
            await self._require_lone()
            self._pairing.cancel()
            await delivery.pause()
            await delivery.drain(SETTLED_WITHIN_S)
            await self._require_lone()
            result = await self._join(body)
        except BaseException:
            self.under_way = False
            await delivery.resume()
            raise
        self._parts.base.events.publish("join", f"joined the mesh of {result.peer['nickname']}")
        self.superseded.set()
        return result

    async def _require_lone(self) -> None:
        base = self._parts.base
        require_lone(base.registry, base.me, base.vault, await self._database.read(count_messages))

    async def _join(self, body: t.JoinRequest) -> t.JoinResult:
        base = self._parts.base
        joining = Joining(
            self._home,
            base.identity,
            base.clock,
            base.build,
            urls=base.urls(),
            standing_name=self._standing_name,
            witness=body.witness or base.witness,
        )
        return await joining.run(
            body.url, body.code, body.nickname, sas=body.sas, confirm=self.comparison.ask
        )
