"""``python -m benchmarks.messages``: messages through the whole path, HTTP in, agent, reply committed.

One node with the ``echo`` agent and the ``local`` channel, ``synchronous=FULL``; then with a standby in
the electorate, so that each message is on two disks before it is acknowledged. Beside it what a bare
``fdatasync`` costs here, because that bounds a message that is alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from tests.cluster.harness import Cluster, Machine, wait_for

TOPICS = 64


@contextmanager
def nodes(folder: Path, standby: bool) -> Iterator[Machine]:
    """One awake node with the ``echo`` agent, alone or with a standby in sync."""
    cluster = Cluster(folder)
    try:
        desk = cluster.machine("desk", hub=None)
        desk.configure(ttl_ms=6_000)
        desk.start()
        wait_for(desk.is_awake)
        if standby:
            mini = cluster.machine("mini", hub=None)
            mini.configure(ttl_ms=6_000)
            cluster.join(desk, mini)
            mini.start()
            cluster.wait_in_sync(desk, [mini])
        yield desk
    finally:
        cluster.close()


async def send(url: str, token: str, count: int, in_flight: int, name: str) -> list[float]:
    """Post so many messages over ``TOPICS`` topics; seconds to each acknowledgement."""
    took: list[float] = []
    gate = asyncio.Semaphore(in_flight)
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def one(number: int) -> None:
            body = {"topic": f"t{number % TOPICS}", "text": f"message {number}", "key": f"{name}{number}"}
            async with gate:
                begun = time.perf_counter()
                async with session.post(f"{url}/messages", json=body) as reply:
                    assert reply.status == 200, await reply.text()
                took.append(time.perf_counter() - begun)

        await asyncio.gather(*map(one, range(count)))
    return took


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fdatasync_s(folder: Path) -> float:
    """Median time of one small write that reaches the disk, seconds."""
    times: list[float] = []
    with (folder / "probe").open("wb", buffering=0) as probe:
        for _ in range(50):
            begun = time.perf_counter()
            probe.write(b"x" * 512)
            os.fdatasync(probe.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measure(desk: Machine, count: int, in_flight: int) -> dict[str, float]:
    """Throughput until every reply is committed, and the latency of acknowledgements."""
    token = desk.home.api_token.read_text().strip()
    name = f"{in_flight}-"
    asyncio.run(send(desk.daemon.url, token, TOPICS, in_flight, f"warm{name}"))
    used, begun = cpu_seconds(desk.daemon.pid), time.perf_counter()
    took = asyncio.run(send(desk.daemon.url, token, count, in_flight, name))
    accepted = time.perf_counter() - begun
    wait_for(lambda: sum(row.queued for row in desk.api.topics().topics) == 0, 120)
    committed = time.perf_counter() - begun
    return {
        "in_flight": in_flight,
        "acknowledged_per_s": round(count / accepted),
        "committed_per_s": round(count / committed),
        "p50_ms": round(statistics.median(took) * 1e3, 2),
        "cpu_ms_per_message": round((cpu_seconds(desk.daemon.pid) - used) / count * 1e3, 3),
    }


def main() -> None:
    """Print one JSON line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000)
    count: int = parser.parse_args().count
    for standby in (False, True):
        with tempfile.TemporaryDirectory() as folder, nodes(Path(folder), standby) as desk:
            sync_ms = round(fdatasync_s(Path(folder)) * 1e3, 2)
            for in_flight in (64, 1):
                result = measure(desk, count if in_flight > 1 else count // 20, in_flight)
                json.dump({"standby": standby, "fdatasync_ms": sync_ms, **result}, sys.stdout)
                print(flush=True)


if __name__ == "__main__":
    main()
