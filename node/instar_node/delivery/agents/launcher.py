"""Runs one agent so that it cannot outlive the node: ``python -I -S launcher.py LIFELINE PROGRAM ARG…``.

The launcher leads a process group of its own and the agent runs in it. LIFELINE is the read end of a pipe
whose only writer is the node: when the node is gone, however it died, the read ends and the whole group is
killed, on Linux and macOS alike. What the node writes there is until when the agent may go on (eight bytes,
big-endian: microseconds of the clock that counts suspend); when that is over, the group is killed as well, so
the agents of a node that hangs end in time. On Linux what left the group is killed with it.
(``PR_SET_PDEATHSIG`` alone reaches only the direct child, is unknown on macOS, and setting it in a
``preexec_fn`` runs Python between fork and exec of a threaded process.) On Linux the agent also asks to die
with the launcher, in case somebody kills that alone.

A separate program of the bare interpreter: it must start in milliseconds and import nothing of the node.
Exit status: the agent's own, 128 + signal if a signal ended it, 127 if the program could not be started.
"""

import _thread
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
NOT_STARTED = 127
LOOK_EVERY_S = 0.05
"""How often the clock is looked at; a longer sleep would not count the time of a suspend."""
NEVER_US = 1 << 61
"""An end beyond this needs no looking at the clock."""
KILL_ROUNDS = 10
"""What is started while others are being killed is found in the next round."""
CLOCK = getattr(time, "CLOCK_BOOTTIME", None) or time.CLOCK_MONOTONIC
"""The clock of ``instar_node.clock``, which is not imported here."""
_ending = _thread.allocate_lock()
"""Taken for good when everything is about to be killed: nobody leaves before that is done."""


def _prctl(option: int, value: int) -> None:
    """Linux: ask the kernel for something about this process."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def _become_agent(program: list[str], lifeline: int) -> None:
    """In the child: turn into the agent, or say on stderr why not."""
    try:
        os.close(lifeline)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would pass that on
        if sys.platform == "linux":
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvp(program[0], program)  # noqa: S606 - running the configured program is the purpose
    except OSError as error:
        os.write(2, f"cannot start {program[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _watch(lifeline: int) -> None:
    """Kill everything, this process included, when the node is gone or its leave to go on has ended."""
    end = 0
    while True:
        pause = None if end == 0 or end > NEVER_US else LOOK_EVERY_S
        if select.select([lifeline], [], [], pause)[0]:
            told = os.read(lifeline, 4096)
            if not told:
                break
            end = int.from_bytes(told[-8:], "big")
        if end <= time.clock_gettime_ns(CLOCK) // 1_000:
            break
    _ending.acquire()
    _kill_descendants()
    os.killpg(0, signal.SIGKILL)


def _kill_descendants() -> None:
    """Linux: kill what left the process group too. Orphans of the agent became children of this process."""
    if sys.platform != "linux":
        return
    for _ in range(KILL_ROUNDS):
        found = _descendants()
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _descendants() -> list[int]:
    """Living processes below this one, from ``/proc``."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    above = [os.getpid()]
    while above:
        below = children.get(above.pop(), [])
        found += below
        above += below
    return found


def main(arguments: list[str]) -> int:
    """Run the program, wait for it, pass on its exit status."""
    lifeline, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _become_agent(program, lifeline)
    # The agent holds the pipes to the node; a copy here would keep them open after it has closed its own.
    devnull = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(devnull, stream)
    # SIGTERM to the group is meant for the agent, which may tidy up; the launcher stays to report its end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _thread.start_new_thread(_watch, (lifeline,))
    _, status = os.waitpid(child, 0)
    _ending.acquire()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
