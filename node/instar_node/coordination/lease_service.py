"""The lease as the rest of the node sees it: what persons and other parts ask of it, and its pictures."""

from __future__ import annotations

from instar_node.coordination.http_lease_transport import HistoryRow, YieldToken, token_text
from instar_node.coordination.lease_driver import LeaseDriver
from instar_node.coordination.lease_view import LeaseSnapshot, if_lost, lease_state, valid_for
from instar_node.coordination.record import KnownRecord
from instar_node.errors import InstarError


class LeaseService(LeaseDriver):
    """Implements ``contracts.Authority``; the one object of the node that knows who is awake."""

    # -- members -----------------------------------------------------------------------------------

    async def admit(self, machine: str) -> KnownRecord:
        """Take a joiner into the record, benched until it has caught up: one swap.

        Raises:
            InstarError: ``not-awake``, or ``hub-unreachable`` when the swap did not land in time.
        """
        self.require_acting()
        self.coordinator.membership.wishes.admit.add(machine)
        self.coordinator.membership.wishes.expel.discard(machine)
        self.poke()

        def admitted() -> bool:
            own = self.lease.holding
            return own is not None and machine in {*own.record.electorate, *own.record.benched}

        if not await self.wait_until(admitted, 15.0):
            self.coordinator.membership.wishes.admit.discard(machine)
            raise InstarError("hub-unreachable", "the hub did not take the admission in time", status=502)
        self.coordinator.membership.wishes.admit.discard(machine)
        assert self.known is not None
        return self.known

    async def expel(self, machine: str) -> None:
        """Take a machine out of electorate and bench: one swap. Raises as ``admit``."""
        self.require_acting()
        self.coordinator.membership.wishes.expel.add(machine)
        self.poke()

        def gone() -> bool:
            own = self.lease.holding
            return own is not None and machine not in {*own.record.electorate, *own.record.benched}

        if not await self.wait_until(gone, 15.0):
            raise InstarError("hub-unreachable", "the hub did not take the removal in time", status=502)

    # -- passing it on, taking it ------------------------------------------------------------------

    async def bring_in(self, machine: str, within: float) -> None:
        """Wait until a machine is in the electorate; the first step of a handoff.

        Raises:
            InstarError: ``not-in-sync`` when it did not catch up in time.
        """
        self.require_acting()
        self.coordinator.membership.hurry(machine)
        self.poke()

        def inside() -> bool:
            own = self.lease.holding
            return own is not None and self.lease.open is None and machine in own.record.electorate

        if not await self.wait_until(inside, within):
            nickname = self._members.nickname(machine)
            raise InstarError("not-in-sync", f"{nickname} has not caught up yet", "try again in a moment")

    async def pass_to(self, machine: str, within: float) -> int:
        """The last step of a handoff: give up durably, then hand over; returns the epoch that was seen.

        Raises:
            InstarError: ``not-awake`` (nothing was given up), ``declined`` (embedded hub: awake again at a
                later epoch), ``handoff-failed`` (given up, but the successor has not been seen to hold).
        """
        epoch = self.require_acting()
        own = self.lease.holding
        assert own is not None
        assert own.version is not None
        if self.lease.open is not None or machine not in own.record.electorate:
            raise InstarError("not-in-sync", "the electorate is changing", "try again in a moment")
        if self.lease.baton:
            return await self.baton.pass_to(machine, within)
        self.lease.cease(own.version)
        self.after_step()
        signature = self.sign(token_text(own.version, machine))
        token = YieldToken(own.version, machine, signature)
        await self.transport.give_token(machine, token, within)

        def taken() -> bool:
            return self.epoch > epoch

        if not await self.wait_until(taken, within):
            raise InstarError("handoff-failed", "the successor has not taken the lease yet")
        return self.epoch

    async def release(self) -> None:
        """Give the lease up so that another may take it at once; an embedded lease stays here.

        Waits until the hub took the release, or raises ``InstarError("hub-unreachable")``: then the lease
        runs out by itself.
        """
        self.coordinator.eligible = False
        own = self.lease.holding
        if self.lease.baton or own is None or own.version is None:
            return
        if not await self.wait_until(lambda: self.lease.open is None, 1.0):
            raise InstarError("hub-unreachable", "an earlier swap is still open; the lease will run out")
        own = self.lease.holding
        if own is None or own.version is None:
            return
        record = self.lease.next_record(
            reason="released", at=self.coordinator.at(), nonce=self.coordinator.nonce(), state="released"
        )
        self.lease.cease(own.version)
        await self.swap_now(record, "release")
        self.peers.announce()

    async def take_over(self, within: float) -> int:
        """A person wants this machine awake and the holder cannot be reached: wait by the rules, then swap.

        Raises:
            InstarError: ``cannot-take-over`` with the reason and the way out.
        """
        before = self.epoch
        due = self.lease.may_contend_at(self.now())
        if isinstance(due, str):
            raise self._cannot_take_over(due)
        self.coordinator.eligible = True
        self.poke()

        def mine() -> bool:
            return self.epoch > before and self.acting_epoch() is not None

        if not await self.wait_until(mine, within):
            raise self._cannot_take_over("state-behind" if self.lacks_state else "not-taken")
        return self.epoch

    def _cannot_take_over(self, why: str) -> InstarError:
        holder = self._members.nickname(self.holder) if self.holder else "the holder"
        texts = {
            "needs-the-baton": (
                f"the lease lies on {holder}'s own disk (embedded hub), so only {holder} can pass it on",
                f"start {holder} again; if it is gone for good, `instar wakeup --force` starts a new "
                "generation here, and `instar hub URL` then gives automatic failover",
            ),
            "split-brain": (
                f"everybody stopped: {self.lease.durable.evidence}",
                "choose the machine whose line is to go on and run `instar lease heal` there",
            ),
            "not-a-member": ("this machine is not in the lease's electorate", "see `instar machines`"),
            "incompatible": (
                f"{holder} ran a version that shares no protocol with this one",
                f"install a version here that works with {holder}'s: `instar update --status` shows both",
            ),
            "state-behind": (
                "the state for which the lease vouches is not here, nor at the hub or a machine in reach",
                f"start {holder}, or bring the hub back to what it had; if both are gone for good, "
                "`instar wakeup --force` goes on from the state of this machine",
            ),
            "not-taken": (
                "the lease could not be taken in time",
                "the hub may be unreachable, or another machine was faster: see `instar lease`",
            ),
        }
        message, hint = texts.get(why, (f"this machine may not take the lease: {why}", "see `instar lease`"))
        return InstarError("cannot-take-over", message, hint, extra={"why": why})

    async def force(self, vouched: tuple[str, ...]) -> int:
        """See ``Generations.force``."""
        return await self.generations.force(vouched)

    async def heal(self, confirmed: bool, vouched: tuple[str, ...]) -> int:
        """See ``Generations.heal``."""
        return await self.generations.heal(confirmed, vouched)

    def on_slow(self, peer: str) -> None:
        """Replication: an electorate member does not acknowledge; it is benched."""
        self.coordinator.on_slow(peer)
        self.poke()

    def bench(self, machine: str, why: str) -> None:
        """Take a machine out of the electorate, if it is in it and this machine holds the lease."""
        self.coordinator.bench(machine, why)
        self.poke()

    async def ask_one(self, machine: str, within: float) -> None:
        """Have one machine promise for the lease as it is, beside the rounds.

        Raises ``InstarError``: ``not-awake``, ``no-promise``.
        """
        self.require_acting()
        own = self.lease.holding
        assert own is not None
        assert own.version is not None
        known = KnownRecord(own.record, own.version)
        reply = await self.transport.ask_promise(machine, known, within)
        if reply is None:
            raise InstarError("no-promise", f"it did not promise within {within:g} s")
        if reply.refusal is not None:
            raise InstarError("no-promise", f"it refused to promise: {reply.refusal}")

    @property
    def lacks_state(self) -> bool:
        """See ``LeaseCoordinator.lacks_state``."""
        return self.coordinator.lacks_state

    # -- views -------------------------------------------------------------------------------------

    def if_lost(self) -> tuple[str | None, int | None, str | None]:
        """``(next machine, after_ms, why_not)`` if the holder died now."""
        reachable = {
            member.machine_id
            for member in self._members.active()
            if (info := self._mesh.info(member.machine_id)) is not None and info.connected and info.compatible
        }
        machine, after, why = if_lost(self.lease, reachable, self.lacks_state)
        return machine, None if after is None else after // 1_000, why

    def snapshot(self) -> LeaseSnapshot:
        """One consistent picture."""
        now, lease, traffic = self.now(), self.lease, self.traffic
        left, expires = valid_for(lease, now)
        due = lease.may_contend_at(now) if lease.known is not None else "no-record"
        own = lease.holding
        others = [m for m in own.record.electorate if m != self.me] if own is not None else []
        proven = max(own.proven, own.started) if own is not None else lease.last_promise
        return LeaseSnapshot(
            record=lease.known.record if lease.known else None,
            version=lease.known.version if lease.known else None,
            acting=lease.may_act(now),
            valid_for_us=left,
            expires=expires,
            state=lease_state(lease, now),
            renewed_us_ago=None if proven is None else now - proven,
            round_took_us=self.peers.round_took,
            medium="promise" if others and not lease.baton else "hub",
            evidence=lease.durable.evidence,
            promised_us_ago={machine: now - at for machine, at in lease.promised.items()},
            first_saw_us_ago=None if lease.first_seen is None else now - lease.first_seen,
            contend_in_us=max(0, due - now) if isinstance(due, int) else None,
            hub_reachable=traffic.error is None,
            hub_latency_us=traffic.latency,
            hub_error=traffic.error,
            register_alarm=traffic.alarm,
            seen=tuple(self.lease.durable.proof),
            last_write_us_ago=None if traffic.last_write is None else now - traffic.last_write,
            counters=dict(self.coordinator.counters),
        )

    async def history(self) -> list[HistoryRow]:
        """The epochs this machine knows of, newest first."""
        return list(self._history.rows)

    def holder_of(self, epoch: int) -> str | None:
        """Who held the lease in an epoch; ``None`` when this machine has not heard of it."""
        return next((row.holder for row in self._history.rows if row.epoch == epoch), None)

    async def note_took(self, epoch: int, took_ms: int) -> None:
        """Record how long a change of holder took, for the history."""
        await self._history.note_took(epoch, took_ms)
