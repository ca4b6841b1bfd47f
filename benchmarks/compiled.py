"""Programs as they are after an installation: their modules compiled, and compiled only once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTINGS = ("PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")


@contextmanager
def compiled_in(folder: Path) -> Iterator[None]:
    """Processes started meanwhile keep their compiled modules in ``folder``, whatever the environment says.

    The first run of a program fills it, so it does not count.
    """
    before = {name: os.environ.pop(name, None) for name in _SETTINGS}
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
