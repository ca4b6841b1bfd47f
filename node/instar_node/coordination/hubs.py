"""The hubs this node knows, and the store on each: the present one, and another while the lease moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instar_node.coordination.hub import Hub, parse_hub, read_hub
from instar_node.coordination.hub_troubles import another_hub
from instar_node.coordination.lease_store import LeaseStore, StoreUnavailable
from instar_node.coordination.record import HubPlace
from instar_node.errors import InstarError
from instar_node.storage.home import Home


def open_store(hub: Hub, home: Home) -> LeaseStore:
    """The store on a hub that can be reached without the mesh: every kind but a witness."""
    if hub.kind == "etcd":
        from instar_node.coordination.etcd_lease_store import EtcdLeaseStore

        return EtcdLeaseStore(hub)
    from instar_node.coordination.git_lease_store import GitLeaseStore

    return GitLeaseStore(hub, home)


class Hubs:
    """Opens stores, and sees that each is on the hub that was meant.

    Args:
        home: This node's folder.
        founding: The hub that records which name none lie on.
        witness: The store on a machine that is a witness.
    """

    def __init__(self, home: Home, founding: Hub, witness: Callable[[str], LeaseStore]) -> None:
        self._home = home
        self.founding = founding
        self._witness = witness
        self._hubs: dict[str, Hub] = {}
        self._stores: dict[Hub, LeaseStore] = {}
        self._recognised: set[HubPlace] = set()

    def hub(self, place: HubPlace | None) -> Hub:
        """The hub at a place that a record names. Raises ``bad-hub`` for a form not known here."""
        if place is None:
            return self.founding
        hub = self._hubs.get(place.url)
        if hub is None:  # read once: a path is resolved, and its disk may hang by the next time
            hub = self._hubs[place.url] = read_hub(place.url, self._home)
        return hub

    async def parse(self, url: str) -> Hub:
        """A hub as a person writes it. Raises as ``parse_hub``."""
        return await asyncio.to_thread(parse_hub, url, self._home)

    def store(self, hub: Hub) -> LeaseStore:
        """The store on a hub, made with the first use. Nothing is contacted."""
        store = self._stores.get(hub)
        if store is None:
            made = self._witness(hub.witness) if hub.kind == "witness" else open_store(hub, self._home)
            store = self._stores[hub] = made
        return store

    async def at(self, place: HubPlace | None) -> LeaseStore:
        """The store at a place that a record names.

        Raises:
            StoreUnavailable: the hub is away, or ``hub-foreign``: another one is there.
        """
        try:
            store = self.store(self.hub(place))
        except InstarError as error:
            raise StoreUnavailable(error.message, error.code) from error
        if place is not None and place.id and place not in self._recognised:
            if await store.hub_id() != place.id:
                raise another_hub(self.hub(place).shown)
            self._recognised.add(place)
        return store

    async def close(self) -> None:
        """Close every store."""
        for store in self._stores.values():
            await store.close()
