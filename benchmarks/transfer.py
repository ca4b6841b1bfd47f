"""``python -m benchmarks.transfer``: how long it takes to move an idle topic to another machine.

Target on loopback: 40 ms at the median.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.mesh import mesh_of
from benchmarks.report import show, show_load
from instar_node.api import types as t
from tests.cluster.harness import Machine, wait_for

TARGET_MS = 40.0


def main() -> int:
    """Move topic after topic, each with a conversation behind it; 0 when the target is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=main.__doc__)
    parser.add_argument("--topics", type=int, default=40, help="topics to move, each once")
    topics = parser.parse_args().topics
    show_load()
    with mesh_of(2) as (awake, other):
        took = [transfer(awake, other, f"topic-{number}") for number in range(topics)]
    return 0 if show("topic transfer", took, "ms", 50, TARGET_MS) else 1


def transfer(awake: Machine, other: Machine, topic: str) -> float:
    """Milliseconds from asking to the answer that it moved."""
    awake.say(topic, "hello")
    wait_for(lambda: awake.replies(topic))
    began = time.perf_counter()
    result = awake.api.transfer(t.TransferRequest(topic, other.nickname))
    took = (time.perf_counter() - began) * 1_000
    assert (result.outcome, result.owner) == ("moved", other.id)
    return took


if __name__ == "__main__":
    sys.exit(main())
