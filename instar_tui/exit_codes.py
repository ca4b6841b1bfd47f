"""What a command's exit status says."""

from __future__ import annotations

from enum import IntEnum

from instar_node.errors import InstarError


class ExitCode(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    REFUSED = 1
    """Refused or failed; the reason is on stderr."""
    USAGE = 2
    NO_NODE = 3
    """No node runs on this home, and the command needs one."""
    CONFIRM = 4
    """Repeat it with ``--yes``."""


def exit_code_of(error: InstarError) -> ExitCode:
    """The exit code that tells scripts which kind of refusal this is."""
    if error.code == "node-not-running":
        return ExitCode.NO_NODE
    if error.code == "needs-confirmation":
        return ExitCode.CONFIRM
    return ExitCode.REFUSED
