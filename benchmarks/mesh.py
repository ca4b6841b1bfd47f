"""A real mesh to measure, on loopback, with the default times of the lease."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.outside import Outside
from tests.cluster.harness import Cluster, Machine, wait_for

NICKNAMES = ("desk", "mini", "attic")
TTL_MS = 6_000


@contextmanager
def outside_of_the_mesh() -> Iterator[Outside]:
    """A thread for what is not part of the mesh, such as the receiver of its replies."""
    outside = Outside()
    try:
        yield outside
    finally:
        outside.close()


@contextmanager
def mesh_of(machines: int, more: str = "") -> Iterator[list[Machine]]:
    """So many paired machines with a path hub and the ``echo`` agent, the first awake and all in sync.

    ``more`` is added to each ``config.toml``.
    """
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as folder:
        cluster = Cluster(Path(folder))
        try:
            yield cluster.pair_up(
                *NICKNAMES[:machines],
                configure=lambda machine: machine.configure(ttl_ms=TTL_MS, bench_ttl_ms=120_000, more=more),
            )
        finally:
            cluster.close()


def awake_and_standby(machines: list[Machine]) -> tuple[Machine, list[Machine]]:
    """Who is awake, and the others, once all of them are in sync with it."""
    awake = wait_for(lambda: [m for m in machines if m.alive and m.is_awake()], 30)[0]
    others = [machine for machine in machines if machine is not awake]
    wait_for(lambda: {m.id for m in others} <= set(awake.api.lease().electorate), 60)
    return awake, others
