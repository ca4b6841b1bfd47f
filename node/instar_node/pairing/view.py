"""What people see of pairing on the machine that minted the code."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from instar_node.clock import MICROS_PER_MS
from instar_node.identity.addresses import is_loopback
from instar_node.pairing.addresses import best_url
from instar_node.pairing.sas import ShortString
from instar_node.pairing.session import LIFETIME_US, MAX_ATTEMPTS, SeenJoiner, Session, State


class PairState(msgspec.Struct, frozen=True):
    """The fields of the API's ``PairView``. Only for the local token: it holds the code."""

    state: State
    code: str | None
    url: str | None
    join_command: str | None
    expires_in_ms: int
    lifetime_ms: int
    attempts_left: int
    attempts_max: int
    sas: ShortString | None
    joiner: SeenJoiner | None
    last_refusal: str | None
    warning: str | None


def view_of(session: Session, remaining_us: int, urls: Iterable[str]) -> PairState:
    """The session as people see it, with the command to type on the other machine."""
    url = best_url(urls)
    command = f"instar join {url} --code {session.code}" if url and session.code else None
    return PairState(
        state=session.state,
        code=session.code,
        url=url,
        join_command=command,
        expires_in_ms=max(0, remaining_us) // MICROS_PER_MS,
        lifetime_ms=LIFETIME_US // MICROS_PER_MS,
        attempts_left=session.attempts_left,
        attempts_max=MAX_ATTEMPTS,
        sas=session.short,
        joiner=session.joiner,
        last_refusal=session.last_refusal,
        warning=_warning(url),
    )


def _warning(url: str | None) -> str | None:
    if url is None:
        return "this machine has no address for others: set node.listen or node.urls in config.toml"
    if is_loopback(url):
        return (
            f"{url} only works on this computer; to pair another one, start the node with "
            "--listen 0.0.0.0:7707 or set node.urls in config.toml"
        )
    return None
