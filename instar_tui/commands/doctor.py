"""``doctor``: what is wrong on this machine and in its mesh, and the command that mends it."""

from __future__ import annotations

from instar_node.api import types as t
from instar_node.api.doctor import diagnosis, home_findings, node_finding
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.exit_codes import ExitCode

_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}


@command("doctor", "instar doctor", "instar doctor --json")
@pass_invocation
def doctor(invocation: Invocation) -> ExitCode:
    """Look for what is wrong and say how to mend it. Exits 1 when there is a problem; a warning is none."""
    answer, out = _look(invocation), invocation.out
    if invocation.json:
        out.json(answer)
    else:
        for finding in answer.findings:
            out.line(f"{_MARKS[finding.state]} {finding.check:<9}  {finding.message}")
            if finding.hint:
                out.line(f"{'':<13}→ {finding.hint}")
    return ExitCode.DONE if answer.healthy else ExitCode.REFUSED


def _look(invocation: Invocation) -> t.Doctor:
    """The running node looks; where none answers, this process looks at the files."""
    try:
        return invocation.api.doctor()
    except InstarError as error:
        return diagnosis([*home_findings(invocation.home), node_finding(error)])
