"""Finding the hub that the signed record names, and knowing it from another one at the same address."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from instar_node.coordination import hubs as hubs_module
from instar_node.coordination.hub import Hub
from instar_node.coordination.hubs import Hubs
from instar_node.coordination.lease_store import LeaseStore, StoreUnavailable
from instar_node.coordination.record import HubPlace
from instar_node.storage.home import Home


def no_witness(machine: str) -> LeaseStore:
    raise AssertionError("no hub here is a witness")


@pytest.fixture
def hubs(tmp_path: Path) -> Hubs:
    home = Home(tmp_path / "home")
    home.prepare()
    return Hubs(home, Hub("embedded", str(home.hub)), no_witness)


async def set_up(hubs: Hubs, path: Path) -> HubPlace:
    store = hubs.store(Hub("path", str(path)))
    await store.create()
    known = await store.hub_id()
    assert known is not None
    return HubPlace(str(path), known)


async def test_records_that_name_no_hub_lie_where_the_mesh_was_founded(hubs: Hubs) -> None:
    assert hubs.hub(None) == hubs.founding
    assert hubs.hub(HubPlace("")) == hubs.founding
    assert await hubs.at(None) is await hubs.at(None)


async def test_a_hub_is_known_by_its_id_and_another_one_at_its_address_is_not_used(
    hubs: Hubs, tmp_path: Path
) -> None:
    place = await set_up(hubs, tmp_path / "mnt")
    assert await (await hubs.at(place)).read() is None
    with pytest.raises(StoreUnavailable, match="another hub") as caught:
        await hubs.at(HubPlace(place.url, "another"))
    assert caught.value.code == "hub-foreign"


async def test_a_place_this_version_cannot_read_is_unavailable_and_no_crash(hubs: Hubs) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await hubs.at(HubPlace("carrier-pigeon://loft"))
    assert caught.value.code == "bad-hub"


async def test_an_address_is_looked_at_once_because_its_disk_may_hang_later(
    hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = HubPlace("/mnt/shared/hub.git")
    first = hubs.hub(place)

    def hang(url: str, home: Home) -> Hub:
        raise AssertionError("the disk hangs")

    monkeypatch.setattr(hubs_module, "read_hub", hang)
    assert hubs.hub(place) is first


async def test_a_persons_path_on_a_disk_that_hangs_does_not_stop_the_node(
    hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = asyncio.Event()

    def slow(url: str, home: Home) -> Hub:
        while not released.is_set():
            time.sleep(0.001)
        return Hub("path", url)

    monkeypatch.setattr(hubs_module, "parse_hub", slow)
    asking = asyncio.create_task(hubs.parse(os.sep))
    await asyncio.sleep(0)
    released.set()  # reached only because the loop goes on
    assert (await asking).url == os.sep
