"""``python -m benchmarks.growth``: processor time of a message with few and with a million before it.

Both ledgers are used in turn by one process, so that a busy computer counts for both alike; the agent echoes,
the replies stay local, SQLite runs with ``synchronous=FULL``. Target: the same, within a tenth. Filling the
large one takes some minutes; both stay in the folder for the next time.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.report import show_load
from tests.unit.delivery_world import World, running_world, until
from tests.unit.test_delivery_growth import LONG, LONG_TOPICS, TALK, fill

TARGET = 1.1
BATCH = 50
"""Messages between two looks at the processor time."""


def main() -> int:
    """Measure; 0 when the target is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where the two ledgers are made, or lie already")
    parser.add_argument("--messages", type=int, default=LONG, help="answered messages in the large one")
    parser.add_argument("--rounds", type=int, default=30, help=f"of {BATCH} messages in each ledger")
    arguments = parser.parse_args()
    show_load()
    for name, messages in (("few", TALK), ("many", arguments.messages)):
        folder = arguments.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "a.db").exists():
            fill(folder / "a.db", messages, LONG_TOPICS)
    few, many = asyncio.run(measured(arguments.folder, arguments.rounds))
    ratio = statistics.median(late / early for early, late in zip(few, many, strict=True))
    early, late = statistics.median(few), statistics.median(many)
    print(
        f"processor time of a message: {early:.2f} ms after few, {late:.2f} ms after {arguments.messages:,} "
        f"(medians of {len(few)} rounds of {BATCH}); ratio of neighbouring rounds {ratio:.2f} "
        f"{'meets' if ratio <= TARGET else 'MISSES'} the target of {TARGET}"
    )
    return 0 if ratio <= TARGET else 1


async def measured(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of processor time of a message in each ledger, round by round."""
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(running_world(folder / name, "a")) for name in ("few", "many")
        ]
        for world in worlds:
            epoch = world["a"].ledger.head.epoch + 1
            world.lead("a", epoch)
            await until(lambda world=world, epoch=epoch: world["a"].ledger.head.epoch == epoch)  # type: ignore[misc]
            await batch(world, epoch, -1)  # its pages are in memory then
        spent: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            for world, times in zip(worlds, spent, strict=True):
                began = time.process_time()
                await batch(world, world["a"].ledger.head.epoch, number)
                times.append((time.process_time() - began) * 1_000 / BATCH)
        return spent


async def batch(world: World, epoch: int, number: int) -> None:
    """Messages that arrive at once, all of them answered."""
    machine = world["a"]
    names = [f"{epoch}-{number}-{n}" for n in range(BATCH)]
    await asyncio.gather(*(machine.delivery.submit("t", f"hello {name}", name) for name in names))
    await until(lambda: not machine.ledger.log.state.open)
    await machine.ledger.settled()


if __name__ == "__main__":
    sys.exit(main())
