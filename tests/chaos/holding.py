"""Stops a node at a named point of its work (``seams/sitecustomize.py``) for as long as a test needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.harness import Machine, wait_for

SEAMS = Path(__file__).parent / "seams"
WITHIN_S = 60.0


class Holding:
    """Of one machine; its node must be started after this."""

    def __init__(self, machine: Machine) -> None:
        self._folder = machine.home.path.with_name(f"{machine.nickname}.hold")
        self._folder.mkdir()
        machine.environment |= {"PYTHONPATH": str(SEAMS), "INSTAR_HOLD": str(self._folder)}

    @contextmanager
    def at(self, point: str, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait until the node has come to this point; it stands there while this is open.

        ``meanwhile`` is called again and again until then. Raises ``AssertionError`` when it takes too long.
        """
        armed, reached = self._folder / "armed", self._folder / "reached"
        new = self._folder / "new"
        new.write_text(point)
        new.rename(armed)

        def there() -> bool:
            meanwhile()
            return reached.exists()

        try:
            wait_for(there, WITHIN_S, every=0.002)
            yield
        finally:
            armed.unlink(missing_ok=True)
            reached.unlink(missing_ok=True)
