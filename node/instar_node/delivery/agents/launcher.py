"""Runs one agent so that it cannot outlive the node: ``python -I -S launcher.py LIFELINE PROGRAM ARG…``.

The launcher leads a process group of its own and the agent runs in it. LIFELINE is the read end of a pipe
whose only writer is the node: when the node is gone, however it died, the read returns and the whole group is
killed, on Linux and macOS alike. (``PR_SET_PDEATHSIG`` alone reaches only the direct child, is unknown on
macOS, and setting it in a ``preexec_fn`` runs Python between fork and exec of a threaded process.) On Linux
the agent also asks to die with the launcher, in case somebody kills that alone.

A separate program of the bare interpreter: it must start in milliseconds and import nothing of the node.
Exit status: the agent's own, 128 + signal if a signal ended it, 127 if the program could not be started.
"""

import _thread
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_STARTED = 127


def _die_with_launcher() -> None:
    """Linux: have the kernel kill this process when its parent ends."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _become_agent(program: list[str], lifeline: int) -> None:
    """In the child: turn into the agent, or say on stderr why not."""
    try:
        os.close(lifeline)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would pass that on
        if sys.platform == "linux":
            _die_with_launcher()
        os.execvp(program[0], program)  # noqa: S606 - running the configured program is the purpose
    except OSError as error:
        os.write(2, f"cannot start {program[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _watch(lifeline: int) -> None:
    """Kill the whole group, this process included, once the node's end of the pipe is closed."""
    while os.read(lifeline, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run the program, wait for it, pass on its exit status."""
    lifeline, program = int(arguments[0]), arguments[1:]
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
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
