"""A standby passes a write to the awake machine: one request over the tunnel, one hop, never a loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from instar_node.api.holder_api import HolderApi
from instar_node.api.routes import (
    HANDOFF,
    MAX_BODY,
    MOVE_HUB,
    OUTBOX_RESOLVE,
    PLACEMENT,
    POOL,
    REMOVE_MACHINE,
    REMOVE_SECRET,
    RENAME,
    REPLY,
    SEND,
    SET_FLAG,
    SET_SECRET,
    TRANSFER,
    UNPIN,
    UPDATE,
    VERIFY,
    Route,
)
from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.contracts import Authority, Members, Mesh, PeerError
from instar_node.errors import InstarError, bad_input

R = TypeVar("R", bound=msgspec.Struct)

FORWARDED: Mapping[str, Route[Any]] = {
    route.method: route
    for route in (
        *(SEND, REPLY, OUTBOX_RESOLVE, RENAME, REMOVE_MACHINE, HANDOFF, MOVE_HUB),
        *(TRANSFER, UNPIN, POOL, PLACEMENT),
        *(SET_SECRET, REMOVE_SECRET),
        *(VERIFY, SET_FLAG, UPDATE),
    )
}
"""What a standby may ask of the holder."""

PATIENCE_S = 5.0
"""How long a wish follows the awake role from machine to machine."""
PAUSE_S = 0.05
NOTHING_DONE = frozenset({"not-awake", "handing-over", "lease-lost", "stale-epoch"})
"""Refusals of a machine that is losing, or has lost, its role: the next holder is asked. What was begun under
the lost lease is either found done there (keys, reservations) or was not done."""
REPEATABLE = frozenset({SEND.method, POOL.method, PLACEMENT.method})
"""What may be asked again although an earlier answer was lost: a message carries its key."""


class ApiCall(msgspec.Struct, frozen=True, tag="api.call"):
    """Please do this. ``arguments`` is a JSON object: the route's parameters, and ``body``."""

    method: Annotated[str, Meta(max_length=64)]
    arguments: Annotated[bytes, Meta(max_length=2 * MAX_BODY)]


class ApiAnswer(msgspec.Struct, frozen=True, tag="api.answer"):
    """The route's reply, as JSON."""

    reply: bytes


class Forwarding:
    """Performs writes here while this machine is awake, and otherwise on the machine that is."""

    def __init__(
        self, holder_api: HolderApi, mesh: Mesh, authority: Authority, members: Members, clock: Clock
    ) -> None:
        self._holder_api = holder_api
        self._mesh = mesh
        self._authority = authority
        self._members = members
        self._clock = clock
        mesh.on_request(ApiCall, self._on_call)

    async def perform(self, route: Route[R], **arguments: Any) -> R:
        """Have the awake machine do it; during a change of holder the new one is asked.

        Raises what that machine refuses with, or ``holder-unreachable`` (502).
        """
        deadline = self._clock.now() + int(PATIENCE_S * MICROS_PER_SECOND)
        while True:
            asked = self._awake
            try:
                return await self._once(route, arguments, deadline)
            except InstarError as error:
                lost = error.code == "holder-unreachable" and route.method in REPEATABLE
                if not (lost or error.code in NOTHING_DONE) or self._clock.now() >= deadline:
                    raise
            if self._awake == asked:  # otherwise there is somebody else to ask, and those who wait notice
                await self._clock.sleep(PAUSE_S)

    @property
    def _awake(self) -> tuple[str | None, int | None]:
        """Who is awake as far as this machine knows, and in which epoch it may act itself."""
        return self._authority.holder, self._authority.acting_epoch()

    async def _once(self, route: Route[R], arguments: dict[str, Any], deadline: int) -> R:
        if self._authority.acting_epoch() is not None:
            done: R = await getattr(self._holder_api, route.method)(self._mesh.me, **arguments)
            return done
        holder = self._authority.holder
        if holder is None or holder == self._mesh.me:
            raise InstarError(
                "not-awake", "no machine is awake now", "`instar lease` says why; `instar wakeup` wakes one"
            )
        within = route.patience_s
        if route.method in REPEATABLE:
            within = max(0.5, (deadline - self._clock.now()) / MICROS_PER_SECOND)
        call = ApiCall(route.method, msgspec.json.encode(arguments))
        try:
            answer = await self._mesh.request(holder, call, ApiAnswer, within=within)
            return msgspec.json.decode(answer.reply, type=route.reply)
        except PeerError as error:
            raise self._refusal(holder, error) from error
        except msgspec.DecodeError as error:
            name = self._members.nickname(holder)
            raise InstarError(
                "bad-answer", f"{name} answered something else: {error}", "update both", status=502
            ) from error

    def _refusal(self, holder: str, error: PeerError) -> InstarError:
        """The holder's own refusal, or that it could not be asked."""
        if error.reason == "refused":
            extra = {k: v for k, v in error.detail.items() if k not in ("code", "message", "hint", "status")}
            return InstarError(
                error.code,
                error.message,
                str(error.detail.get("hint", "")),
                status=int(error.detail.get("status", 502)),
                extra=extra,
            )
        name = self._members.nickname(holder)
        return InstarError(
            "holder-unreachable",
            f"{name}, the awake machine, did not answer: {error.message}",
            f"check that {name} is on and reachable; `instar lease` says who takes over, and when",
            status=502,
            extra={"reason": error.reason},
        )

    async def _on_call(self, peer: str, call: ApiCall) -> ApiAnswer:
        route = FORWARDED.get(call.method)
        if route is None:
            raise bad_input("method", f"{call.method!r} is not passed on between machines")
        if self._authority.acting_epoch() is None:
            raise InstarError("not-awake", "the machine that was asked is not awake")
        arguments = _decode(route, call.arguments)
        reply = await getattr(self._holder_api, route.method)(peer, **arguments)
        return ApiAnswer(msgspec.json.encode(reply))


def _decode(route: Route[Any], raw: bytes) -> dict[str, Any]:
    """The arguments of a call, checked as strictly as a local request. Raises ``bad-input``."""
    kinds: dict[str, Any] = {param.name: param.type for param in route.params}
    if route.body is not None:
        kinds["body"] = route.body
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        if fields.keys() != kinds.keys():
            raise bad_input("arguments", f"{route.method} takes {', '.join(kinds)}")
        return {name: msgspec.json.decode(field, type=kinds[name]) for name, field in fields.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_input("arguments", str(error)) from error
