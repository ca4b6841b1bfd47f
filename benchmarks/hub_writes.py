"""``python -m benchmarks.hub_writes``: how often the hub's register is written while nothing changes.

Target: never. Messages run meanwhile; validity is renewed by promises over the tunnels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.mesh import TTL_MS, awake_and_standby, mesh_of
from benchmarks.report import show_load
from tests.cluster.harness import Machine


def main() -> int:
    """Watch the register for some ttls with 3 machines; 0 when nobody wrote it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hub_writes", description=main.__doc__)
    parser.add_argument("--ttls", type=int, default=5, help="how long, in ttls of 6 s")
    ttls = parser.parse_args().ttls
    show_load()
    with mesh_of(3) as machines:
        awake, _ = awake_and_standby(machines)
        writes, messages = watched(awake, ttls * TTL_MS / 1_000)
    print(
        f"writes to the register in {ttls} ttls, {messages} messages answered meanwhile: {writes} (target 0)"
    )
    return 0 if writes == 0 else 1


def watched(awake: Machine, seconds: float) -> tuple[int, int]:
    """Changes of the register seen, looked at after every message, and how many messages that were."""
    before, writes, messages = tip(awake), 0, 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        awake.say("work", "hello")
        messages += 1
        time.sleep(0.1)
        now = tip(awake)
        writes += now != before
        before = now
    return writes, messages


def tip(machine: Machine) -> str:
    """The commit that the register's ref names."""
    assert machine.hub is not None
    show = ["git", "-C", machine.hub, "rev-parse", "refs/instar/lease"]
    return subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
