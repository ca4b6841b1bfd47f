"""``python -m benchmarks.start``: how long a daemon and the everyday commands take, and what a daemon weighs.

All are run in turns, beside the bare interpreter: the speed of the computer, and what else it does, drop out
of the ratios. Modules are compiled, as an installation leaves them; the first round fills the caches and does
not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.compiled import compiled_in
from benchmarks.mesh import awake_and_standby, mesh_of
from benchmarks.messages import cpu_seconds
from instar_node.storage.home import Home
from instar_tui.daemon_process import DaemonProcess

ROUNDS = 9
IDLE_S = 20.0
SETTLED_S = 1.0
"""After that what a node does behind its ``ready`` is done."""
TARGETS = {
    "help_ms": 80.0,
    "whoami_ms": 120.0,
    "whoami_alone_ms": 120.0,
    "ready_ms": 600.0,
    "rss_mb": 80.0,
    "idle_cpu_percent": 0.5,
}
INSTAR = ("-c", "from instar_tui.cli import main; main()")


def command_ms(*arguments: str) -> float:
    """Wall time of a program run to its end, ms."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return (time.perf_counter() - begun) * 1e3


def one_round(home: Home) -> dict[str, float]:
    """Each once, ms; ``whoami`` both of a running node and of a home on which none runs."""
    whoami = (*INSTAR, "whoami", "--home", str(home.path))
    took = {"bare_python_ms": command_ms("-c", "pass"), "help_ms": command_ms(*INSTAR, "--help")}
    process = DaemonProcess(home, "--listen", "127.0.0.1:0")
    begun = time.perf_counter()
    process.start()
    took["ready_ms"] = (time.perf_counter() - begun) * 1e3
    try:
        time.sleep(SETTLED_S)
        took["whoami_ms"] = command_ms(*whoami)
    finally:
        process.stop()
    took["whoami_alone_ms"] = command_ms(*whoami)
    return took


def idle() -> dict[str, float]:
    """Memory and work of an awake daemon with one peer, when there is nothing to do."""
    with mesh_of(2) as machines:
        awake, _ = awake_and_standby(machines)
        time.sleep(SETTLED_S)
        pid = awake.daemon.pid
        used = cpu_seconds(pid)
        time.sleep(IDLE_S)
        spent = cpu_seconds(pid) - used
        status = Path(f"/proc/{pid}/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"rss_mb": rss / 1024, "idle_cpu_percent": spent / IDLE_S * 100}


def measure(home: Home) -> dict[str, float]:
    """Medians of the rounds, the medians of their ratios to the bare interpreter, and the idle daemon."""
    rounds = [one_round(home) for _ in range(ROUNDS + 1)][1:]
    medians = {name: statistics.median(took[name] for took in rounds) for name in rounds[0]}
    ratios = {
        name.replace("_ms", "_of_bare"): statistics.median(t[name] / t["bare_python_ms"] for t in rounds)
        for name in rounds[0]
        if name != "bare_python_ms"
    }
    return {**medians, **ratios, **idle()}


def main() -> int:
    """Print one JSON object; 1 when a target is missed."""
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as name, compiled_in(Path(name) / "compiled"):
        measured = measure(Home(Path(name) / "home"))
    missed = [name for name, target in TARGETS.items() if measured[name] > target]
    rounded = {name: round(value, 2) for name, value in measured.items()}
    json.dump({**rounded, "load_average": os.getloadavg()[0], "missed": missed}, sys.stdout, indent=1)
    print()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
