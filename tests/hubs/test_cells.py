"""Hubs that are not git: a store that lets two writers win, a witness that refuses, an etcd with accounts."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import pytest

from instar_node.coordination import witness
from instar_node.coordination.cell_lease_store import CellLeaseStore
from instar_node.coordination.cells import version_of
from instar_node.coordination.etcd_lease_store import EtcdLeaseStore
from instar_node.coordination.hub import Hub
from instar_node.coordination.lease_store import Lost, RefusedSwap, Unknown, Won
from instar_node.coordination.witness import (
    ReadCell,
    SwapCell,
    WitnessCells,
    WitnessLeaseStore,
    WitnessRegister,
)
from instar_node.errors import InstarError
from tests.hubs import servers
from tests.unit.fakes_mesh import Net
from tests.unit.lease_store_support import lease_record, renewed, swapped, taken, won


class Careless:
    """Cells that compare first and write later, as a synchronised folder or a naive server does."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    async def read(self, name: str) -> bytes | None:
        return self._values.get(name)

    async def swap(self, name: str, expected: str | None, value: bytes | None) -> None:
        present = self._values.get(name)
        if (None if present is None else version_of(present)) != expected:
            raise RefusedSwap("another value")
        await asyncio.sleep(0)
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value

    async def close(self) -> None: ...


async def test_a_store_that_lets_two_writers_win_is_refused_by_the_probe() -> None:
    with pytest.raises(InstarError, match="each of them had won") as caught:
        await CellLeaseStore(Careless(), "the careless one").probe()
    assert caught.value.code == "hub-not-atomic"


# -- the witness ---------------------------------------------------------------------------------------


def signed(machine: str, data: bytes, signature: bytes) -> bool:
    return signature == b"signed"


async def test_a_witness_keeps_what_it_was_told_through_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "register"
    known = await won(WitnessLeaseStore(WitnessRegister(folder, signed)), lease_record())
    again = WitnessLeaseStore(WitnessRegister(folder, signed))
    assert await again.read() == known
    assert isinstance(await swapped(again, taken(known)), Won)


@pytest.mark.parametrize("wrong", ["unsigned", "older", "emptied"])
async def test_a_witness_takes_no_record_that_no_member_signed_and_never_goes_back(
    tmp_path: Path, wrong: str
) -> None:
    register = WitnessRegister(tmp_path / "register", signed)
    store = WitnessLeaseStore(register)
    known = await won(store, renewed(await won(store, lease_record(epoch=5))))
    value = {
        "unsigned": taken(known).encode().replace(base64.b64encode(b"signed"), b""),
        "older": lease_record(epoch=4).encode(),
        "emptied": None,
    }[wrong]
    with pytest.raises(RefusedSwap):
        await register.swap("lease", known.version, value)
    assert await store.read() == known


async def test_a_witness_still_writing_for_a_caller_that_is_gone_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = WitnessRegister(tmp_path / "register", signed)
    write, begun, go_on = witness.write_atomic, threading.Event(), threading.Event()

    def write_slowly(path: Path, data: bytes) -> None:
        begun.set()
        go_on.wait(10)
        write(path, data)

    monkeypatch.setattr(witness, "write_atomic", write_slowly)
    first = asyncio.create_task(register.swap("hub", None, b"first"))
    await asyncio.to_thread(begun.wait, 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(register.swap("hub", None, b"second"))
    await asyncio.sleep(0.1)
    go_on.set()
    with pytest.raises(RefusedSwap):
        await second
    assert await register.read("hub") == b"first"


async def test_a_refused_swap_on_the_expected_version_is_told_and_not_lost(tmp_path: Path) -> None:
    store = WitnessLeaseStore(WitnessRegister(tmp_path / "register", signed))
    known = await won(store, lease_record(epoch=5))
    outcome = await store.compare_and_swap(known.version, await store.prepare(lease_record(epoch=4)))
    assert isinstance(outcome, Unknown)
    assert "newer record" in outcome.why


async def test_a_witness_whose_disk_fails_says_so_and_the_swap_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "register").write_text("a file where the folder should be")
    net = Net()
    ada, nas = net.node("m-ada"), net.node("nas")
    WitnessRegister(tmp_path / "register", signed).serve(nas)
    store = WitnessLeaseStore(WitnessCells(ada, "nas"))
    outcome = await swapped(store, lease_record())
    assert isinstance(outcome, Unknown)
    assert "witness cannot" in outcome.why


@pytest.mark.parametrize("name", ["../config", "a/b", "", "Lease", "x" * 65, "lease\n"])
def test_a_member_cannot_name_a_file_outside_the_register(name: str) -> None:
    for question in (ReadCell(name), SwapCell(name, None, b"x")):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(question), type=type(question))


# -- an etcd with accounts -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An etcd that wants to know who asks; ``host:port``. ``ada`` may write, ``bea`` only read."""
    with servers.etcd_server(tmp_path_factory.mktemp("guarded")) as url:
        base = url.replace("etcd://", "http://")

        def ask(path: str, **fields: Any) -> None:
            request = Request(f"{base}/v3/auth/{path}", data=json.dumps(fields).encode())
            with urlopen(request, timeout=10) as answer:
                answer.read()

        def name(text: str) -> str:
            return base64.b64encode(text.encode()).decode()

        for role, kind in (("writer", "READWRITE"), ("reader", "READ")):
            ask("role/add", name=role)
            everything = {"permType": kind, "key": name("instar/"), "range_end": name("instar0")}
            ask("role/grant", name=role, perm=everything)
        for user, role in (("root", "root"), ("ada", "writer"), ("bea", "reader")):
            ask("user/add", name=user, password="pass")
            if role == "root":
                ask("role/add", name="root")
            ask("user/grant", user=user, role=role)
        ask("enable")
        yield url.removeprefix("etcd://")


async def test_an_etcd_with_accounts_is_used_by_those_who_may(guarded: str) -> None:
    store = EtcdLeaseStore(Hub("etcd", f"etcd://ada:pass@{guarded}"))
    await store.create()
    known = await won(store, lease_record())
    assert await swapped(store, lease_record(holder="m-bea")) == Lost(known)
    await store.close()


@pytest.mark.parametrize(
    ("login", "code"),
    [("", "hub-credentials"), ("ada:no@", "hub-credentials"), ("bea:pass@", "hub-read-only")],
)
async def test_an_etcd_that_does_not_let_us_write_is_told_apart(guarded: str, login: str, code: str) -> None:
    store = EtcdLeaseStore(Hub("etcd", f"etcd://{login}{guarded}"))
    with pytest.raises(InstarError) as caught:
        await store.probe()
    assert caught.value.code == code
    assert ":no@" not in caught.value.message
    await store.close()
