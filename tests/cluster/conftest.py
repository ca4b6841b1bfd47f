"""The ``cluster`` fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Real machines of one test; what still runs is killed. A failure shows the end of their logs."""
    with Cluster(tmp_path) as cluster:
        yield cluster
        for machine in cluster.machines:
            for line in machine.log()[-40:]:
                print(f"{machine.nickname}: {line}")
