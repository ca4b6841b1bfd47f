"""Does a hub let exactly one of two writers win? Asked by racing, before a lease is trusted to it.

Servers have got this wrong (one compared the expected value before it took its lock), and a folder that a
program synchronises gets it wrong by nature.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from pathlib import Path
from typing import Protocol

from instar_node.coordination.hub_troubles import hub_error, refusal
from instar_node.coordination.lease_store import RefusedSwap, StoreUnavailable
from instar_node.errors import InstarError

_LOG = logging.getLogger("instar.coordination")

_ROUNDS = 3

_MEET = """#!/bin/sh
# Runs in two pushes after each has read the register, before it writes: none goes on without the other.
cat >/dev/null
here=$(dirname "$0")
: >"$here/arrived.$$"
tries=0
while [ "$(ls "$here" | grep -c '^arrived')" -lt 2 ] && [ $tries -lt 100 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
exit 0
"""


class Racecourse(Protocol):
    """What is raced on: the refs of a git hub, or the cells of another (see ``Refs`` for the methods)."""

    async def scratch(self) -> str: ...

    async def tip(self, ref: str, have: str | None) -> str | None: ...

    async def swap(self, ref: str, expected: str | None, new: str, hooks: Path | None = None) -> None: ...

    async def remove(self, ref: str, expected: str) -> None: ...


async def probe_hub(refs: Racecourse, shown: str, prefix: str = "") -> None:
    """Race two writers for a scratch ref: first to create it, then to change it from the same value.

    ``prefix`` is the folder of refs in which the scratch ref is made.

    Raises:
        InstarError: ``hub-not-atomic`` when both win; ``hub-refuses`` when neither does; the code of
            ``StoreUnavailable`` when the hub is away.
    """
    ref = f"{prefix}probe-{secrets.token_hex(8)}"
    tip: str | None = None
    try:
        for _ in range(_ROUNDS):
            tip = await _race(refs, ref, tip, shown)
    except StoreUnavailable as error:
        raise hub_error(error) from error
    finally:
        await _tidy(refs, ref)


async def _race(refs: Racecourse, ref: str, expected: str | None, shown: str) -> str:
    """Both writers at once; the version of the one that won."""
    candidates = [await refs.scratch() for _ in range(2)]
    with tempfile.TemporaryDirectory(prefix="instar-probe-") as folder:
        meet = Path(folder) / "pre-push"
        meet.write_text(_MEET)
        meet.chmod(0o700)
        attempts = (refs.swap(ref, expected, candidate, Path(folder)) for candidate in candidates)
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None and not isinstance(outcome, RefusedSwap):
            raise outcome
    winners = [candidate for candidate, refusal in zip(candidates, outcomes, strict=True) if refusal is None]
    if not winners:
        raise refusal("hub-refuses", f"{shown} refuses to set {ref}: {outcomes[0]}")
    if len(winners) > 1:
        raise _not_atomic(shown, "told two writers at once that each of them had won")
    if await refs.tip(ref, None) != winners[0]:
        raise _not_atomic(shown, "does not hold the value that it said it had taken")
    return winners[0]


async def _tidy(refs: Racecourse, ref: str) -> None:
    """Remove the scratch ref. A hub that does not let us is only left with one ref that nobody reads."""
    try:
        tip = await refs.tip(ref, None)
        if tip is not None:
            await refs.remove(ref, tip)
    except (StoreUnavailable, RefusedSwap) as error:
        _LOG.warning("the scratch ref %s stays on the hub: %s", ref, error)


def _not_atomic(shown: str, what: str) -> InstarError:
    return refusal("hub-not-atomic", f"{shown} {what}, so it cannot keep a lease")
