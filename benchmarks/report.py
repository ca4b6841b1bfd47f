"""Medians and percentiles, printed beside their target."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def show(what: str, values: Sequence[float], unit: str, judged: float, target: float) -> bool:
    """Print p50, p95, p99 and the largest; the ``judged`` percentile is held against the target."""
    found = percentile(values, judged)
    met = found <= target
    points = "  ".join(f"p{percent} {percentile(values, percent):.1f}" for percent in (50, 95, 99))
    print(
        f"{what}: {points}  max {max(values):.1f} {unit} (n = {len(values)}); "
        f"p{judged:g} {'meets' if met else 'MISSES'} the target of {target:g} {unit}",
        flush=True,
    )
    return met


def show_load() -> None:
    """How busy this computer is: figures of a busy one say little."""
    one, five, _ = os.getloadavg()
    print(f"load average {one:.1f} (5 min: {five:.1f}) on {os.cpu_count()} cores", flush=True)
