"""``python -m benchmarks.messages``: messages through the whole path, HTTP in, agent, reply committed.

One node with the ``echo`` agent and the ``local`` channel, ``synchronous=FULL``; then with a standby in
the electorate, so that each message is on two disks before it is acknowledged. Beside it what a bare
``fdatasync`` costs here, because that bounds a message that is alone; and what the least that could be
called a message server (``benchmarks.skeleton``) takes just before and just after: a computer is not always
as quick.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.cluster.harness import Cluster, wait_for

TOPICS = 256
"""Conversations. Within one, a message waits for the answer to the one before it."""


@dataclass(frozen=True)
class Server:
    """What takes messages: where, who may send them, its process, and how many it has not answered yet."""

    url: str
    token: str
    pid: int
    unanswered: Callable[[], int]


@contextmanager
def nodes(folder: Path, standby: bool) -> Iterator[Server]:
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
        yield Server(
            desk.daemon.url,
            desk.home.api_token.read_text().strip(),
            desk.daemon.pid,
            lambda: sum(row.queued for row in desk.api.topics().topics),
        )
    finally:
        cluster.close()


@contextmanager
def skeleton(folder: Path) -> Iterator[Server]:
    """The least that takes messages and answers them."""
    command = [sys.executable, "-m", "benchmarks.skeleton", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            yield Server(url, "", process.pid, lambda: int(urlopen(f"{url}/unanswered").read()))
        finally:
            process.kill()


class Sender(asyncio.Protocol):
    """One connection that posts a message, waits for its acknowledgement and posts the next.

    It writes and reads the bytes of HTTP itself: a client library would take as much of the computer as the
    node that is measured.
    """

    def __init__(self, requests: Iterator[bytes], took: list[float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._took = took
        self._answer = b""
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or length is None or len(body) < int(length[1]):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(AssertionError(self._answer.decode()))
            return
        self._took.append(time.perf_counter() - self._begun)
        self._answer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the node closed the connection"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._transport.write(request)


async def send(url: str, token: str, count: int, in_flight: int, name: str) -> list[float]:
    """Post so many messages over ``TOPICS`` topics; seconds to each acknowledgement."""
    address = urlsplit(url)
    assert address.hostname is not None
    took: list[float] = []
    requests = iter([request(address.netloc, token, number, name) for number in range(count)])
    connect = asyncio.get_running_loop().create_connection
    senders = [
        (await connect(lambda: Sender(requests, took), address.hostname, address.port or 80))[1]
        for _ in range(in_flight)
    ]
    await asyncio.gather(*(sender.done for sender in senders))
    return took


def request(host: str, token: str, number: int, name: str) -> bytes:
    """One message as the bytes of its request."""
    message = {"topic": f"t{number % TOPICS}", "text": f"message {number}", "key": f"{name}{number}"}
    body = json.dumps(message)
    return (
        f"POST /messages HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


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


def measure(server: Server, count: int, in_flight: int) -> dict[str, float]:
    """Throughput until every reply is committed, and the latency of acknowledgements."""
    name = f"{in_flight}-"
    asyncio.run(send(server.url, server.token, TOPICS, in_flight, f"warm{name}"))
    used, begun = cpu_seconds(server.pid), time.perf_counter()
    took = asyncio.run(send(server.url, server.token, count, in_flight, name))
    accepted = time.perf_counter() - begun
    wait_for(lambda: server.unanswered() == 0, 120, every=0.01)
    committed = time.perf_counter() - begun
    return {
        "in_flight": in_flight,
        "acknowledged_per_s": round(count / accepted),
        "committed_per_s": round(count / committed),
        "p50_ms": round(statistics.median(took) * 1e3, 2),
        "cpu_ms_per_message": round((cpu_seconds(server.pid) - used) / count * 1e3, 3),
    }


def measure_skeleton(count: int) -> float:
    """Messages a second that the skeleton answers with 64 in flight."""
    with tempfile.TemporaryDirectory() as folder, skeleton(Path(folder)) as server:
        return measure(server, count, 64)["committed_per_s"]


def main() -> None:
    """Print one JSON line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000)
    count: int = parser.parse_args().count
    for standby in (False, True):
        before = measure_skeleton(count)
        with tempfile.TemporaryDirectory() as folder, nodes(Path(folder), standby) as server:
            sync_ms = round(fdatasync_s(Path(folder)) * 1e3, 2)
            many = measure(server, count, 64)
            bare = (before + measure_skeleton(count)) / 2
            ratio = {"skeleton_per_s": round(bare), "of_skeleton": round(many["committed_per_s"] / bare, 2)}
            for result in ({**many, **ratio}, measure(server, count // 20, 1)):
                json.dump({"standby": standby, "fdatasync_ms": sync_ms, **result}, sys.stdout)
                print(flush=True)


if __name__ == "__main__":
    main()
