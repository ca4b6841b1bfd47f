"""What goes between this machine and the others about the lease: promises, notices, tokens, history."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from instar_node.contracts import Members, Mesh
from instar_node.coordination.epoch_history import EpochHistory
from instar_node.coordination.http_lease_transport import (
    HistoryReply,
    HistoryRequest,
    HttpLeaseTransport,
    LeaseNotice,
    PromiseReply,
    PromiseRequest,
    TokenReply,
    YieldToken,
    token_text,
)
from instar_node.coordination.lease_coordinator import AskPromises

if TYPE_CHECKING:
    from instar_node.coordination.lease_driver import LeaseDriver


class LeasePeers:
    """Asks the other machines, answers them, and tells them what is new."""

    def __init__(
        self,
        driver: LeaseDriver,
        transport: HttpLeaseTransport,
        mesh: Mesh,
        members: Members,
        history: EpochHistory,
    ) -> None:
        self._driver = driver
        self._transport = transport
        self._mesh = mesh
        self._members = members
        self._history = history
        self._compared: set[str] = set()
        self.round_took: int | None = None
        """How long the last promise round took, microseconds."""

    def serve(self) -> None:
        """Answer the others from now on."""
        self._transport.serve(
            promise=self._on_promise_request,
            token=self._on_token,
            closing=self._driver.baton.on_closing,
            history=self._on_history_request,
            notice=self._on_notice,
            split_brain=self._driver.split_brain.on_notice,
        )
        self._mesh.on_peer(self._on_peer)

    def connected(self, machine: str) -> bool:
        """Whether a machine can be asked now."""
        return self._mesh.connected(machine)

    def compared(self, machine: str) -> bool:
        """Whether a machine has shown its newest record since it was last connected."""
        return machine in self._compared

    async def ask_round(self, ask: AskPromises) -> None:
        """One promise round: every machine is asked at once, and each answer counts when it comes."""
        replies = [self._ask_one(machine, ask) for machine in ask.machines]
        await asyncio.gather(*replies)
        self._driver.coordinator.on_round_over()
        self.round_took = self._driver.now() - ask.began

    async def _ask_one(self, machine: str, ask: AskPromises) -> None:
        reply = await self._transport.ask_promise(machine, ask.known, ask.within / 1e6)
        now = self._driver.now()
        if reply is None:
            self._driver.coordinator.on_miss(machine)
        elif reply.refusal is None:
            self._driver.coordinator.on_promise(machine, ask.known.version, ask.began, now)
        else:
            self._driver.coordinator.count("promises_refused")
            if reply.newest is not None:
                self._driver.learn(reply.newest)
        self._driver.after_step()

    async def _on_promise_request(self, peer: str, request: PromiseRequest) -> PromiseReply:
        if not self._driver.is_ours(request.known):
            return PromiseReply("not-authentic", self._driver.known)
        refusal = self._driver.lease.answer_promise(peer, request.known, self._driver.now())
        self._driver.persist()
        self._driver.after_step()
        known = self._driver.known
        newer = known if known and known.version != request.known.version else None
        return PromiseReply(refusal, newer)

    def _on_notice(self, peer: str, notice: LeaseNotice) -> None:
        self._compared.add(peer)
        if notice.known is not None:
            self._driver.learn(notice.known)
        self._driver.poke()

    async def _on_token(self, peer: str, token: YieldToken) -> TokenReply:
        signed = token_text(token.version, token.successor)
        genuine = token.successor == self._driver.me and self._driver.verify(peer, signed, token.signature)
        taken = genuine and self._driver.lease.accept_token(token.version, peer)
        self._driver.poke()
        return TokenReply(taken)

    async def _on_history_request(self, peer: str, request: HistoryRequest) -> HistoryReply:
        return HistoryReply(tuple(self._history.rows[:200]))

    def _on_peer(self, machine: str, up: bool) -> None:
        if up:
            self._transport.notify(machine, self._driver.known)
            self._driver.split_brain.tell(machine)
            self._driver.spawn(self._compare_history(machine))
        else:
            self._compared.discard(machine)
        self._driver.poke()

    async def _compare_history(self, machine: str) -> None:
        await self._history.merge(await self._transport.ask_history(machine, 5.0))

    def announce(self) -> None:
        """Tell every connected machine the newest record."""
        for machine in self.connected_members():
            self._transport.notify(machine, self._driver.known)

    def connected_members(self) -> list[str]:
        """The other machines that can be told something now."""
        members = [member.machine_id for member in self._members.active()]
        return [
            machine for machine in members if machine != self._driver.me and self._mesh.connected(machine)
        ]
