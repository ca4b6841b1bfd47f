"""``python -m benchmarks.start``: how long a daemon and the everyday commands take, and what a daemon weighs.

Beside each the bare interpreter in the same run: the machine's own speed drops out of the ratio.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.messages import cpu_seconds
from instar_node.storage.home import Home
from instar_tui.daemon_process import DaemonProcess

RUNS = 9


def command_ms(*arguments: str) -> float:
    """Median wall time of a program run to its end, ms."""
    times: list[float] = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        times.append((time.perf_counter() - begun) * 1e3)
    return round(statistics.median(times), 1)


def daemon(folder: Path) -> dict[str, float]:
    """Start a daemon again and again on one home: until ``ready``, then its memory and its idle work."""
    home, ready = Home(folder), []
    for run in range(RUNS):
        process = DaemonProcess(home, "--listen", "127.0.0.1:0")
        begun = time.perf_counter()
        process.start()
        ready.append((time.perf_counter() - begun) * 1e3)
        if run == RUNS - 1:
            time.sleep(3)
            used = cpu_seconds(process.pid)
            time.sleep(10)
            idle = (cpu_seconds(process.pid) - used) / 10
            status = Path(f"/proc/{process.pid}/status").read_text()
        process.stop()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {
        "ready_ms": round(statistics.median(ready), 1),
        "rss_mb": round(rss / 1024, 1),
        "idle_cpu_percent": round(idle * 100, 2),
    }


def main() -> None:
    """Print one JSON object."""
    instar = "from instar_tui.cli import main; main()"
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "bare_python_ms": command_ms("-c", "pass"),
            "help_ms": command_ms("-c", instar, "--help"),
            **daemon(Path(folder) / "home"),
            "whoami_ms": command_ms("-c", instar, "whoami", "--home", str(Path(folder) / "home")),
        }
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
