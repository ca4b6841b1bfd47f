"""Telling a process from a later one that got the same number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROC = Path("/proc")


def identity(pid: int) -> str | None:
    """A string that no other process of any boot shares, or ``None`` when no such process lives.

    Linux: boot id and start time in clock ticks (``proc(5)``, ``stat`` field 22). Elsewhere: the start time
    that ``ps`` reports. A zombie counts as gone.
    """
    return _linux_identity(pid) if sys.platform == "linux" else _ps_identity(pid)


def group_of_run(group: int, key: str) -> bool:
    """Linux: whether a living member of this process group was started for the message ``key``.

    For a group whose leader is gone. Elsewhere always false: another process's environment is not readable.
    """
    if sys.platform != "linux":
        return False
    mark = b"INSTAR_RUN=" + key.encode("utf-8", "surrogateescape")
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat_fields(int(entry.name))
        if fields is None or int(fields[2]) != group:
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of ``/proc/<pid>/stat`` from the third (state) on; the name before them may hold anything."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def _linux_identity(pid: int) -> str | None:
    fields = _stat_fields(pid)
    if fields is None:
        return None
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{fields[19]}"


def _ps_identity(pid: int) -> str | None:
    done = subprocess.run(  # noqa: S603 - fixed program, integer argument
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else " ".join(started.split())
