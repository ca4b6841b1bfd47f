"""The side that types the code: two requests, then a checked outcome, or the step that failed and why."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec

from instar_node.clock import MICROS_PER_SECOND, Clock
from instar_node.errors import InstarError
from instar_node.identity.addresses import is_loopback, reachable
from instar_node.identity.chain import fold
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.nicknames import check_nickname
from instar_node.pairing.addresses import normal_url
from instar_node.pairing.exchange import JoinerExchange, Keys, WrongGuessError, check_confirmation
from instar_node.pairing.sas import ShortString
from instar_node.pairing.session import LIFETIME_US
from instar_node.pairing.wire import (
    PAIRING_VERSION,
    Finish,
    Finished,
    HubTerms,
    JoinerInfo,
    PairingGrant,
    Refusal,
    Request,
    Start,
    Started,
    Terms,
    Verdict,
)
from instar_node.pairing.words import normal_code

log = logging.getLogger("instar.pairing")

PATH = "/api/pair"
POLL_S = 0.5
FINISH_TRIES = 3
"""A lost answer to ``finish`` is asked for again: the same bytes get the same answer, at no cost."""

Post = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
Confirm = Callable[[ShortString], Awaitable[bool]]
"""Shows the short string to the person here, and asks whether the other machine shows the same."""
CheckHub = Callable[[HubTerms], Awaitable[None]]
T = TypeVar("T")


class JoinOutcome(msgspec.Struct, frozen=True):
    """A finished join, checked: the grant, the short string, and where the host was reached."""

    grant: PairingGrant
    sas: ShortString
    url: str


async def join(
    url: str,
    code: str,
    identity: MachineIdentity,
    nickname: str,
    urls: Iterable[str],
    *,
    post: Post,
    clock: Clock,
    witness: bool = False,
    version: str = "",
    protocol: tuple[int, int] = (1, 1),
    sas: bool = False,
    confirm: Confirm | None = None,
    check_hub: CheckHub | None = None,
) -> JoinOutcome:
    """Join the mesh of the machine at ``url`` as a standby. Nothing is written here.

    Args:
        post: Sends a body to an address and returns status and body; raises ``OSError`` or ``TimeoutError``
            when there is no answer. It must wait as long as an admission may take (a lease swap on the hub).
        sas: Demand that people compare the short string before anything is admitted; needs ``confirm``.
        check_hub: Looks whether this machine can use the hub, before anything is admitted. Its
            ``InstarError`` is raised here, after the host was told that this machine does not come.
        confirm: Shows the short string and asks the person. Called if either side demands it; without it,
            a host that does is answered by a refusal that says so.

    Raises:
        InstarError: Names the step that failed and what to do: ``bad-input`` (no attempt was made),
            ``host-unreachable``, ``not-a-node``, ``wrong-code`` with ``attempts_left``, ``declined``,
            ``host-not-authentic``, ``bad-grant``, or the host's own refusal.
    """
    if sas and confirm is None:
        raise ValueError("sas needs somebody to confirm it")
    address = normal_url(url)
    exchange = JoinerExchange(normal_code(code), identity.machine_id)
    info = JoinerInfo(
        identity=identity.public,
        nickname=check_nickname(nickname),
        urls=reachable(urls, same_host=is_loopback(address)),
        witness=witness,
        version=version,
        protocol=protocol,
        sas=sas,
    )
    return await _Join(address + PATH, exchange, info, post, clock, confirm, check_hub).run(address)


class _Join:
    """One attempt at joining."""

    def __init__(
        self,
        endpoint: str,
        exchange: JoinerExchange,
        info: JoinerInfo,
        post: Post,
        clock: Clock,
        confirm: Callable[[ShortString], Awaitable[bool]] | None,
        check_hub: CheckHub | None,
    ) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._info = info
        self._post = post
        self._clock = clock
        self._confirm = confirm
        self._check_hub = check_hub

    async def run(self, address: str) -> JoinOutcome:
        me = self._info.identity.machine_id
        _, started = await self._ask(Start(PAIRING_VERSION, me, self._exchange.commitment), Started)
        try:
            keys = self._exchange.receive(started.session, started.machine_id, started.share)
            finished = await self._finish(started.session, keys)
            check_confirmation(keys, "host", finished.confirm)
            if not finished.sealed:
                finished = await self._agree(started.session, keys, finished.terms)
            grant = _decode(keys.unseal("host", finished.sealed), PairingGrant)
        except WrongGuessError:
            raise _not_authentic() from None
        self._check(grant, started.machine_id)
        return JoinOutcome(grant, keys.short_string(), address)

    async def _finish(self, session: str, keys: Keys) -> Finished:
        sealed = keys.seal("joiner", msgspec.json.encode(self._info))
        finish = Finish(session, self._exchange.share, keys.confirmation("joiner"), sealed)
        for left in range(FINISH_TRIES - 1, -1, -1):
            try:
                status, finished = await self._ask(finish, Finished)
            except InstarError as error:
                if error.code != "host-unreachable" or not left:
                    raise
                await self._clock.sleep(POLL_S)
            else:
                break
        if status == 200 and self._info.sas:
            raise _not_authentic()  # a host that heard our wish would have waited for two people
        return finished

    async def _agree(self, session: str, keys: Keys, sealed_terms: bytes) -> Finished:
        """See whether the hub can be used from here, ask the person where wanted, and tell the host."""
        terms = _decode(keys.unseal("terms", sealed_terms), Terms) if sealed_terms else None
        if terms is not None and self._check_hub is not None:
            try:
                await self._check_hub(HubTerms(terms.hub_kind, terms.hub_url, terms.hub_id))
            except InstarError:
                await self._tell(session, keys, accept=False)
                raise
        if terms is None or terms.compare:
            await self._compare(session, keys)
        return await self._until_admitted(session, keys)

    async def _compare(self, session: str, keys: Keys) -> None:
        """Ask the person here whether both machines show the same."""
        if self._confirm is None:
            await self._tell(session, keys, accept=False)
            raise InstarError(
                "sas-required",
                "the other machine wants both short strings compared",
                "run the same command again with --sas and a new code",
            )
        if not await self._confirm(keys.short_string()):
            await self._tell(session, keys, accept=False)
            raise InstarError(
                "declined",
                "declined here; nothing was admitted",
                "if the strings differed, somebody is between the machines: do not use this network",
                status=403,
            )

    async def _until_admitted(self, session: str, keys: Keys) -> Finished:
        """Say yes, and wait for the admission, or for the person there."""
        deadline = self._clock.now() + LIFETIME_US
        while self._clock.now() < deadline:
            verdict = Verdict(session, True, keys.verdict(True))
            status, finished = await self._ask(verdict, Finished)
            if status == 200:
                check_confirmation(keys, "host", finished.confirm)
                return finished
            await self._clock.sleep(POLL_S)
        raise InstarError(
            "not-confirmed",
            f"nobody answered on the other machine within {LIFETIME_US // MICROS_PER_SECOND} s",
            "run `instar pair --sas` there again and answer on both machines",
        )

    async def _tell(self, session: str, keys: Keys, *, accept: bool) -> None:
        try:
            await self._ask(Verdict(session, accept, keys.verdict(accept)), Finished)
        except InstarError as error:
            if error.code != "declined":  # the host's way of saying that it heard us
                log.warning("the other machine did not hear that the join was declined: %s", error.message)

    async def _ask(self, request: Request, reply: type[T]) -> tuple[int, T]:
        try:
            status, body = await self._post(self._endpoint, msgspec.json.encode(request))
        except (TimeoutError, OSError) as error:
            raise InstarError(
                "host-unreachable",
                f"{self._endpoint} does not answer: {error or type(error).__name__}",
                "check the address, that the node runs there and listens on it (--listen), and the firewall",
                status=502,
            ) from error
        if status in (200, 202):
            return status, _decode(body, reply)
        raise _refusal(status, body, self._endpoint)

    def _check(self, grant: PairingGrant, host_id: str) -> None:
        """Believe nothing that the exchange does not carry: ids, keys, mesh and our own admission."""
        try:
            grant.identity.check()
            folded = fold(grant.records)
        except InstarError as error:
            raise _bad_grant(error.message) from error
        host, me = folded.members.get(host_id), folded.members.get(self._info.identity.machine_id)
        if grant.identity.machine_id != host_id or host is None or host.removed:
            raise _bad_grant("the host is not a member of its own mesh")
        if grant.mesh_id != folded.mesh_id:
            raise _bad_grant("the registry is of another mesh")
        if me is None or me.removed or me.encryption_public != self._info.identity.encryption_public:
            raise _bad_grant("the registry does not admit this machine")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InstarError(
            "not-a-node",
            "the answer does not come from an instar node of this version",
            "check the address and the versions of both machines",
            status=502,
        ) from error


def _refusal(status: int, body: bytes, endpoint: str) -> InstarError:
    """The host's refusal as our own error: its code, sentence and hint."""
    try:
        fields: dict[str, Any] = dict(msgspec.json.decode(body, type=Refusal).error)
        code, message = str(fields.pop("code")), str(fields.pop("message"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return InstarError(
            "not-a-node",
            f"{endpoint} answered {status}, which is no answer of an instar node",
            "check the address; a proxy in between must pass POST /api/pair",
            status=502,
        )
    return InstarError(code, message, str(fields.pop("hint", "")), status=status, extra=fields)


def _not_authentic() -> InstarError:
    return InstarError(
        "host-not-authentic",
        "the machine that answered could not prove that it knows the code",
        "somebody may be between the machines: check the address and use a new code",
        status=403,
    )


def _bad_grant(why: str) -> InstarError:
    return InstarError(
        "bad-grant",
        f"the other machine admitted this one, but what it sent cannot be trusted: {why}",
        "remove this machine there (`instar machines remove`), update both, and join again",
        status=502,
    )
