"""Moving a living mesh to another hub: everything is tried before anything is changed.

The new hub is set up, probed, and tried from every machine that could take over; who cannot use it is
benched. Then the holder stops acting, closes the old register naming the new one, opens that one, and acts
again in the next epoch. Whoever else may contend finishes the move if it cannot (``FencedLease``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from instar_node.contracts import Members, Mesh, PeerError
from instar_node.coordination.hub import WITNESS, Hub
from instar_node.coordination.hub_troubles import hub_error, of_another_mesh, refusal
from instar_node.coordination.lease_store import LeaseStore, StoreUnavailable
from instar_node.coordination.record import HubPlace, is_authentic
from instar_node.errors import InstarError
from instar_node.events import EventHub

if TYPE_CHECKING:
    from instar_node.coordination.lease_driver import LeaseDriver

log = logging.getLogger("instar.lease")

TRIAL_S = 20.0
"""How long another machine may take to look at the new hub, which may be a slow remote one."""
BENCH_S = 20.0
FINISH_S = 30.0


class TryHub(msgspec.Struct, tag="lease.try-hub", frozen=True):
    """The lease is about to move there: can you use it?"""

    url: Annotated[str, Meta(max_length=2_048)]
    id: Annotated[str, Meta(max_length=128)]


class HubTried(msgspec.Struct, tag="lease.hub-tried", frozen=True):
    """``why`` not; empty for yes."""

    why: str


class HubMoved(msgspec.Struct, frozen=True):
    """How a move ended. ``unreachable``: machines that cannot use the new hub, or were not there, and why."""

    hub: Hub
    moved: bool
    epoch: int
    took_ms: int
    unreachable: dict[str, str]


class HubMove:
    """Both sides of a move, for one ``LeaseDriver``."""

    def __init__(self, driver: LeaseDriver, mesh: Mesh, members: Members, events: EventHub) -> None:
        self._driver = driver
        self._mesh = mesh
        self._members = members
        self._events = events
        self._running = False
        self.on_moved: Callable[[Hub], None] = lambda hub: None
        """Set by the composition root: note the hub that the mesh uses from now on."""

    def serve(self) -> None:
        """Try hubs for the holder from now on."""
        self._mesh.on_request(TryHub, self._on_try)

    def note(self, hub: Hub) -> None:
        """The newest record names another hub than before, on whichever machine."""
        self.on_moved(hub)
        self._events.publish("lease", f"the lease lies in {hub.shown} ({hub.kind}) now", hub=hub.wire_url)

    async def move(self, url: str) -> HubMoved:
        """Move the lease to the hub at ``url``, which a person wrote.

        Raises:
            InstarError: ``not-awake``, ``busy``, what is wrong with the new hub (nothing has changed), or
                ``hub-move-unfinished`` when the old register was closed and the new one is not open yet.
        """
        before = self._driver.require_acting()
        hub = await self._wanted(url)
        if hub == self._driver.hub:
            return HubMoved(hub, False, before, 0, {})

        async def move(place: HubPlace) -> dict[str, str]:
            unreachable = {} if hub.kind == "embedded" else await self._try_everywhere(place)
            await self._bench(unreachable)
            await self._close_and_open(place, before)
            return unreachable

        return await self._run(hub, move)

    async def force(self, url: str, vouched: tuple[str, ...]) -> HubMoved:
        """Leave a hub that is dead: nobody can close its register, so a new generation begins in another one.

        Raises:
            InstarError: as ``move``; ``hub-reachable`` when the present hub answers somebody: that machine
                might take the lease over there; ``needs-confirmation`` listing whom to vouch for.
        """
        hub = await self._wanted(url)
        if hub.kind == "embedded" or self._driver.hub.kind == "embedded":
            raise InstarError(
                "bad-hub",
                "by force the lease moves from one shared hub to another",
                "`instar wakeup --force` begins anew on this machine's own disk",
                status=400,
            )
        if hub == self._driver.hub:
            raise InstarError("bad-hub", "this is the present hub", "name another one", status=400)
        await self._require_dead_hub()

        async def move(place: HubPlace) -> dict[str, str]:
            unreachable = await self._try_everywhere(place)
            await self._driver.generations.force_onto(place, vouched)
            return unreachable

        return await self._run(hub, move)

    async def _require_dead_hub(self) -> None:
        present, known = self._driver.hub, self._driver.lease.hub
        place = known or HubPlace(present.wire_url)
        troubles = await self._try_everywhere(place)
        answered = [machine for machine in self._others() if machine not in troubles]
        try:
            await self._driver.tip()
            answered.append(self._driver.me)
        except StoreUnavailable as error:
            log.info("the hub is to be left by force: %s", error.message)
        if answered:
            name = self._members.nickname(answered[0])
            raise InstarError(
                "hub-reachable",
                f"{name} reaches the present hub, {present.shown}, so it can be left in good order",
                f"make {name} the awake machine if it is not, and there: `instar hub URL`",
            )

    async def _run(self, hub: Hub, move: Callable[[HubPlace], Awaitable[dict[str, str]]]) -> HubMoved:
        """Set the new hub up and move, one move at a time."""
        if self._running:
            raise InstarError("busy", "the hub moves already", "`instar hub` tells where it lies")
        self._running, began = True, self._driver.now()
        try:
            unreachable = await move(await self._set_up(hub))
        finally:
            self._running = False
        took_ms = (self._driver.now() - began) // 1_000
        return HubMoved(hub, True, self._driver.epoch, took_ms, unreachable)

    # -- before anything is changed ------------------------------------------------------------------

    async def _wanted(self, url: str) -> Hub:
        hub = await self._driver.hubs.parse(url)
        if hub.kind != "witness":
            return hub
        member = self._members.resolve(hub.witness)
        if member is None or not member.witness:
            witnesses = [member.nickname for member in self._members.active() if member.witness]
            raise InstarError(
                "no-witness",
                f"{hub.witness} is not a witness of this mesh",
                f"witnesses: {', '.join(witnesses)}"
                if witnesses
                else "on a machine that is always on: `instar join URL --code CODE --witness`, and then "
                "`instar-tui --daemon`",
                status=400,
            )
        return Hub("witness", WITNESS + member.machine_id)

    async def _set_up(self, hub: Hub) -> HubPlace:
        """Make the new hub ready, and see that its register is free and atomic."""
        if hub.kind == "embedded":
            return HubPlace("")
        store = self._driver.hubs.store(hub)
        try:
            await store.create()
            tip = await self._free_register(store, hub)
            await store.probe()
            known = await store.hub_id()
        except StoreUnavailable as error:
            raise hub_error(error) from error
        return HubPlace(hub.wire_url, known or "", tip)

    async def _free_register(self, store: LeaseStore, hub: Hub) -> str | None:
        """What the register holds, if it is nothing or what our own mesh left there when it moved away."""
        present = await store.read()
        if present is None:
            return None
        if not is_authentic(present.record, self._driver.verify):
            raise of_another_mesh(hub.shown)
        if not present.record.moves:
            message = f"{hub.shown} holds a lease of this mesh that was never closed: it was forced away"
            raise refusal("hub-in-use", message, status=409)
        return present.version

    async def _try_everywhere(self, place: HubPlace) -> dict[str, str]:
        """Every other machine of the lease that cannot use the new hub, and why."""
        others = self._others()
        answers = await asyncio.gather(*(self._try_at(machine, place) for machine in others))
        return {machine: why for machine, why in zip(others, answers, strict=True) if why}

    def _others(self) -> list[str]:
        known = self._driver.known
        if known is None:
            raise InstarError("no-lease", "this machine knows of no lease")
        record = known.record
        return sorted({*record.electorate, *record.benched, record.holder} - {self._driver.me})

    async def _try_at(self, machine: str, place: HubPlace) -> str:
        try:
            reply = await self._mesh.request(machine, TryHub(place.url, place.id), HubTried, within=TRIAL_S)
        except PeerError as error:
            return error.message
        return reply.why

    async def _on_try(self, peer: str, question: TryHub) -> HubTried:
        try:
            store = await self._driver.hubs.at(HubPlace(question.url, question.id))
            await store.probe()
        except (StoreUnavailable, InstarError) as error:
            name = self._members.nickname(peer)
            self._events.publish(
                "alert",
                f"{name} moves the lease to a hub that this machine cannot use: {error.message}",
                code="hub-unreachable",
            )
            return HubTried(error.message)
        return HubTried("")

    # -- the move --------------------------------------------------------------------------------------

    async def _bench(self, unreachable: dict[str, str]) -> None:
        """Take who cannot use the new hub out of the electorate: it could not take over there."""
        driver = self._driver

        def still_in() -> set[str]:
            own = driver.lease.holding
            return set() if own is None else set(unreachable) & set(own.record.electorate)

        for machine in still_in():
            driver.coordinator.membership.wishes.bench[machine] = "cannot use the new hub"
        driver.poke()
        settled = await driver.wait_until(lambda: not still_in() and driver.lease.open is None, BENCH_S)
        if not settled:
            raise InstarError("hub-unreachable", "the present hub does not take the change", status=502)

    async def _close_and_open(self, place: HubPlace, before: int) -> None:
        driver, lease = self._driver, self._driver.lease
        driver.require_acting()
        own = lease.holding
        assert own is not None, "who may act holds"
        assert own.version is not None
        assert lease.open is None, "nothing has happened since `_bench` saw that none is open"
        record = lease.moving_record(
            place, reason="the hub moves", at=driver.coordinator.at(), nonce=driver.coordinator.nonce()
        )
        lease.cease(own.version)
        await driver.swap_now(record, "close")

        def opened() -> bool:
            return driver.epoch > before and driver.acting_epoch() is not None

        if not await driver.wait_until(opened, FINISH_S):
            raise self._unfinished(place)
        if lease.hub != place:
            raise InstarError(
                "hub-move-failed", "another machine took the lease over before the hub had moved"
            )

    def _unfinished(self, place: HubPlace) -> InstarError:
        known = self._driver.known
        closed = known is not None and known.record.hub == place
        if closed and known is not None and known.record.holder != self._driver.me:
            name = self._members.nickname(known.record.holder)
            return InstarError("hub-move-overtaken", f"{name} opened the new hub first, and is awake now")
        return InstarError(
            "hub-move-unfinished",
            "the old hub is closed and the new one does not answer; it is opened as soon as it does"
            if closed
            else "the present hub does not answer; the move goes on when it does",
            "`instar lease` shows where it stands",
            status=502,
        )
