"""Entry points of ``instar`` and ``instar-tui``.

``instar-tui`` without arguments goes straight to the screens: loading what reads a command line would take a
tenth of the time to the first frame.
"""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

SHORT_LIVED = 100_000
"""Objects that a command may make before the collector looks for garbage; most are over before."""


def main() -> None:
    """``instar``."""
    gc.set_threshold(SHORT_LIVED)
    from instar_tui.program import instar, run

    _leave(run(instar, sys.argv[1:]))


def main_tui() -> None:
    """``instar-tui``."""
    if len(sys.argv) == 1:
        _leave(_control_centre())
    from instar_tui.program import instar_tui, run

    _leave(run(instar_tui, sys.argv[1:]))


def _control_centre() -> int:
    """What ``instar-tui`` does when nothing else is asked for."""
    from instar_tui.launch import launch
    from instar_tui.place import chosen_home

    try:
        return launch(chosen_home())
    except (Exception, KeyboardInterrupt) as error:
        from instar_tui.program import outcome

        return outcome(error)


def _leave(code: int) -> NoReturn:
    gc.freeze()  # the collector's last look at all that was loaded would be a sixth of a short command
    sys.exit(code)
