"""Records and swaps for the tests of lease stores."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pygit2

from instar_node.coordination.git_lease_store import LEASE_REF
from instar_node.coordination.git_repository import LEASE_FILE
from instar_node.coordination.lease_store import LeaseStore, SwapOutcome, Won
from instar_node.coordination.record import KnownRecord, LeaseRecord, decode_record


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


async def swapped(store: LeaseStore, record: LeaseRecord) -> SwapOutcome:
    return await store.compare_and_swap(record.prev, await store.prepare(record))


async def won(store: LeaseStore, record: LeaseRecord) -> KnownRecord:
    outcome = await swapped(store, record)
    assert isinstance(outcome, Won), outcome
    return outcome.known


def epochs(repository: Path) -> list[LeaseRecord]:
    """The last record of each epoch, newest first: what ``git log`` of the register shows."""
    opened = pygit2.Repository(str(repository))
    commits = opened.walk(opened.references[LEASE_REF].target)
    return [decode_record(opened[commit.tree[LEASE_FILE].id].data) for commit in commits]


def fake_ssh(folder: Path, body: str) -> str:
    """A program that git takes for ssh. ``$command`` is what it is to run over there, as one string."""
    script = folder / "ssh"
    script.write_text(f"#!/bin/sh\nfor command; do :; done\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)
