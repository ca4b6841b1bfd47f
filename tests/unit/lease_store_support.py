"""Records, hubs and writers for the tests of the git lease store. Also a program: see ``main``."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path

import msgspec

from instar_node.coordination.git_lease_store import GitLeaseStore
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import Lost, SwapOutcome, Won
from instar_node.coordination.record import KnownRecord, LeaseRecord
from instar_node.storage.home import Home


def lease_record(
    epoch: int = 1, serial: int = 1, prev: str | None = None, holder: str = "m-ada"
) -> LeaseRecord:
    return LeaseRecord(
        epoch=epoch,
        serial=serial,
        prev=prev,
        holder=holder,
        incarnation="boot",
        electorate=(holder,),
        benched=(),
        ttl_ms=6_000,
        bench_ttl_ms=120_000,
        reason="a test",
        at="2026-11-23T16:58:03.120Z",
        nonce=os.urandom(8).hex(),
        signature=b"signed",
    )


def renewed(known: KnownRecord) -> LeaseRecord:
    record = known.record
    return msgspec.structs.replace(
        record, serial=record.serial + 1, prev=known.version, nonce=os.urandom(8).hex()
    )


def taken(known: KnownRecord, holder: str = "m-bea") -> LeaseRecord:
    record = known.record
    return lease_record(record.epoch + 1, record.serial + 1, known.version, holder)


async def swapped(store: GitLeaseStore, record: LeaseRecord) -> SwapOutcome:
    return await store.compare_and_swap(record.prev, await store.prepare(record))


async def won(store: GitLeaseStore, record: LeaseRecord) -> KnownRecord:
    outcome = await swapped(store, record)
    assert isinstance(outcome, Won), outcome
    return outcome.known


def fake_ssh(folder: Path, body: str) -> str:
    """A program that git takes for ssh. ``$command`` is what it is to run over there, as one string."""
    script = folder / "ssh"
    script.write_text(f"#!/bin/sh\nfor command; do :; done\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


async def contend(hub: Hub, home: Home, swaps: int, name: str) -> None:
    """Take the lease ``swaps`` times against all others, printing the nonce of every acknowledged swap."""
    store = GitLeaseStore(hub, home)
    while swaps:
        known = await store.read()
        assert known is not None
        record = taken(known, name)
        outcome = await swapped(store, record)
        if isinstance(outcome, Won):
            print(record.nonce, flush=True)
            swaps -= 1
        else:
            assert isinstance(outcome, Lost), outcome


if __name__ == "__main__":  # python -m tests.unit.lease_store_support HUB-PATH HOME SWAPS NAME
    _, url, home, count, name = sys.argv
    asyncio.run(contend(Hub("path", url), Home(Path(home)), int(count), name))
