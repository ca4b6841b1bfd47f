"""New generations of the lease: what only a person may begin, by force or to heal a split brain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar_node.coordination.hub_troubles import hub_error
from instar_node.coordination.lease_store import StoreUnavailable
from instar_node.coordination.record import HubPlace
from instar_node.coordination.successions import replace_record
from instar_node.errors import InstarError

if TYPE_CHECKING:
    from instar_node.coordination.lease_driver import LeaseDriver


class Generations:
    """The commands that end a line of epochs and begin one above all that were seen."""

    def __init__(self, driver: LeaseDriver) -> None:
        self._driver = driver

    async def force(self, vouched: tuple[str, ...]) -> int:
        """A person vouches that every unreachable machine is not acting: a new generation begins here.

        Raises:
            InstarError: ``needs-confirmation`` listing whom to vouch for; ``holder-reachable`` when a
                machine that may be acting can be reached (wake up without force).
        """
        driver = self._driver
        known = driver.known
        if known is None:
            raise InstarError("cannot-take-over", "this machine knows of no lease", status=409)
        holder, unreachable = known.record.holder, self._unreachable()
        if holder != driver.me and holder not in unreachable and driver.lease.durable.evidence is None:
            raise InstarError(
                "holder-reachable",
                f"{driver.nickname(holder)} can be reached",
                "`instar wakeup` without --force hands the lease over safely",
            )
        if set(unreachable) - set(vouched):
            raise self._needs_vouching(unreachable)
        return await self._begin()

    async def force_onto(self, place: HubPlace, vouched: tuple[str, ...]) -> int:
        """The present hub is dead, and a person vouches for every unreachable machine: a new generation
        begins here, in another register. Raises as ``force``."""
        unreachable = self._unreachable()
        if set(unreachable) - set(vouched):
            raise self._needs_vouching(unreachable)
        return await self._begin(place)

    async def heal(self, confirmed: bool, vouched: tuple[str, ...]) -> int:
        """A person chose this machine's line: everybody follows it, and hands up what only they hold.

        Raises:
            InstarError: ``nothing-to-heal``; ``needs-confirmation`` with what was seen, what follows and
                whom to vouch for; ``hub-unreachable``; ``cannot-take-over`` when the hub does not take it.
        """
        driver = self._driver
        seen = driver.lease.durable.evidence or driver.traffic.alarm
        if seen is None or driver.known is None:
            raise self._nothing_to_heal()
        unreachable = self._unreachable()
        if not confirmed or set(unreachable) - set(vouched):
            raise self._needs_choice(seen, unreachable)
        await self._require_unhealed()
        return await self._begin()

    async def _require_unhealed(self) -> None:
        """Another machine may have healed it a moment ago, or through a hub that was slow to take it: then
        that line goes on, for nobody chose this one over it."""
        driver = self._driver
        if driver.lease.durable.evidence is None or driver.lease.baton:
            return
        await self._tip()
        if driver.lease.durable.evidence is None:
            assert driver.known is not None
            raise InstarError(
                "nothing-to-heal",
                f"{driver.nickname(driver.known.record.holder)} has healed it already",
                "its line goes on; `instar wakeup` hands the lease over",
            )

    def _nothing_to_heal(self) -> InstarError:
        trouble = self._driver.hub_error
        return InstarError(
            "nothing-to-heal",
            "there is no split brain, and the hub "
            + ("shows the lease" if trouble is None else f"does not answer: {trouble}"),
            "`instar lease` tells who holds it"
            if trouble is None
            else "a hub that is gone for good is left by `instar hub URL --force`",
        )

    def _unreachable(self) -> list[str]:
        """Machines of every line that was seen and that this one cannot ask."""
        driver = self._driver
        assert driver.known is not None
        lines = [driver.known.record, *(seen.record for seen in driver.lease.durable.proof)]
        machines = {machine for old in lines for machine in (*old.electorate, *old.benched, old.holder)}
        return sorted(m for m in machines - {driver.me} if not driver.connected(m))

    async def _begin(self, place: HubPlace | None = None) -> int:
        """``place``: a register to begin in other than the present one, of which nothing can be expected."""
        driver, lease = self._driver, self._driver.lease
        if place is not None:
            expected = place.tip
        else:
            expected = driver.coordinator.own_tip if lease.baton else await self._tip()
            if lease.pursued:
                raise InstarError("busy", "a swap of this machine is still open", "try again in a moment")
        coordinator = driver.coordinator
        record = driver.on_own_state(lease.force_record(at=coordinator.at(), nonce=coordinator.nonce()))
        lease.heal()
        if place is None:
            await driver.swap_now(record, "contend", expected)
        else:
            await driver.swap_now(replace_record(record, hub=place), "contend", expected, place)
        if driver.acting_epoch() is None:
            raise InstarError(
                "cannot-take-over", f"the hub did not take the new generation: {driver.hub_error}"
            )
        return driver.epoch

    async def _tip(self) -> str | None:
        try:
            return await self._driver.tip()
        except StoreUnavailable as error:
            if error.found is not None:
                return error.found
            raise hub_error(error) from error

    def _needs_vouching(self, unreachable: list[str]) -> InstarError:
        names, lost = self._names(unreachable), self._state_lost()
        return _needs_confirmation(
            f"{names} cannot be reached{lost and ', and the newest state is not here'}",
            f"Force this machine awake? {names} cannot be reached. If one of them is in fact "
            "running, two machines will answer until they meet, and replies it gives meanwhile may "
            f"be doubled or lost. Messages only it holds arrive when it is back.{lost}",
            unreachable,
        )

    def _state_lost(self) -> str:
        """What a person gives up who goes on without what the lease vouches for; empty when it is here."""
        if not self._driver.coordinator.lacks_state:
            return ""
        assert self._driver.known is not None
        vouched = self._driver.known.record.state_head[:12]
        return (
            f" The newest state ({vouched}) is not here: what was changed in the shared state after this "
            "machine's copy is lost."
        )

    def _needs_choice(self, seen: str, unreachable: list[str]) -> InstarError:
        away = (
            f" {self._names(unreachable)} cannot be reached: go on only if you know that "
            if unreachable
            else ""
        )
        away += "none of them is running." if away else ""
        return _needs_confirmation(
            f"what was seen: {seen}",
            f"{seen}.\nGo on from this machine's line? It becomes the awake one in a new generation, above "
            "every epoch that was seen. All others follow it; messages and answers that only they hold are "
            f"joined to it, and what two lines answered differently is shown as undecided.{away}",
            unreachable,
        )

    def _names(self, machines: list[str]) -> str:
        return ", ".join(map(self._driver.nickname, machines))


def _needs_confirmation(message: str, prompt: str, vouch: list[str]) -> InstarError:
    return InstarError(
        "needs-confirmation",
        message,
        "confirm only if you know that none of them is running" if vouch else "confirm to go on from here",
        extra={"prompt": prompt, "vouch": vouch},
    )
