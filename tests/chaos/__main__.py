"""``python -m tests.chaos``: the chaos run for as long as you like. Exit status 1 when one fails."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.chaos.nemesis import FAULTS
from tests.chaos.world import World

ROUND_S = 60.0


def main() -> int:
    """Rounds of a minute, each on a fresh mesh with its own seed, until the time is over or one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long in all (default 5)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the first round")
    parser.add_argument("--machines", type=int, default=3, choices=(2, 3, 4, 5))
    parser.add_argument("--round", type=float, default=ROUND_S, help="seconds of chaos a round (default 60)")
    parser.add_argument("--hands", type=int, default=2, help="faults at a time (default 2)")
    parser.add_argument("--embedded", action="store_true", help="without a hub: the baton alone")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=(), help="only these faults")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a failed round")
    given = parser.parse_args()
    ends, seed = time.monotonic() + 60 * given.minutes, given.seed
    while True:
        if not round_holds(seed, given):
            return 1
        seed += 1
        if time.monotonic() >= ends:
            return 0


def round_holds(seed: int, given: argparse.Namespace) -> bool:
    """One round; prints what it came to, and all there is to know when a promise was broken."""
    folder = Path(tempfile.mkdtemp(prefix=f"instar-chaos-{seed}-"))
    world = World(folder, given.machines, seed, embedded=given.embedded)
    try:
        world.start()
        violations = world.run(given.round, given.hands, given.only)
        print(f"seed {seed}: {summary(world)}, {len(violations)} violations", flush=True)
        if violations:
            print(world.report(violations), flush=True)
            (folder / "history.json").write_bytes(msgspec.json.encode(world.history))
            print(f"homes and history: {folder if given.keep else 'removed (--keep keeps them)'}")
        return not violations
    finally:
        world.close()
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


def summary(world: World) -> str:
    """What the round was made of."""
    history = world.history
    keys = len({sent.key for sent in history.sent})
    epochs = max((attempt.epoch for attempt in history.attempts), default=0)
    runs = len({beat.run for beat in history.beats})
    return (
        f"{keys} messages, {runs} runs, {len(history.attempts)} deliveries tried, "
        f"{len(history.deeds)} deeds, {epochs} epochs"
    )


if __name__ == "__main__":
    sys.exit(main())
