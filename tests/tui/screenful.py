"""A running control centre as a test sees it: its pilot, and the screen as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

from instar_tui.app import InstarApp


class Screenful:
    """The app, its pilot, and what is on the screen."""

    def __init__(self, app: InstarApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot

    def lines(self) -> list[str]:
        """The screen as text, one string a line."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        return ["".join(segment.text for segment in strip)[:width] for strip in strips[:height]]

    def text(self) -> str:
        """The whole screen as text."""
        return "\n".join(self.lines())

    async def until(self, what: str | Callable[[], Any], seconds: float = 3.0) -> None:
        """Wait until the screen shows a text, or a condition holds."""
        met = (lambda: what in self.text()) if isinstance(what, str) else what
        for _ in range(int(seconds / 0.02)):
            if met():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"not within {seconds} s: {what!r}\n{self.text()}")

    async def go(self, place: str) -> None:
        """Show a main screen."""
        self.app.action_go(place)
        await self.pilot.pause()
