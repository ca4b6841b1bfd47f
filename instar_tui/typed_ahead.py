"""Keys one at a time: each meets the focus that the key before it left.

Textual hands a key to the focused widget at once and gives a new focus only once the first key has bubbled up
to the app. Of keys that arrive in one burst (a quick typist, a slow line, a paste into a terminal without
bracketed paste) all would go where the focus was at first: the text after ``i`` would run as commands. So
here a key waits until the one before it, and all it set off, is through.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from textual import events
from textual.app import App
from textual.dom import DOMNode
from textual.widget import Widget
from textual.widgets import Input

PATIENCE_S = 2.0
"""After so long the next key asks again whether the one under way is through: the widget that was to tell may
have been taken down before it did."""

Typed = events.Key | events.Paste


class TypedAhead:
    """The keys and pasted texts of one app that are not yet handed on, oldest first.

    A key is through when every widget from the one it went to up to the app has done what lay in its queue;
    and then once more from where the focus is, as often as it has moved (a dialogue opens, a line is sent).

    Args:
        app: Whose keys they are.
        hand_on: Takes a key or text to the focused widget.
    """

    def __init__(self, app: App[None], hand_on: Callable[[events.Event], Awaitable[None]]) -> None:
        self._app = app
        self._hand_on = hand_on
        self._waiting: deque[Typed] = deque()
        self._began: float | None = None
        """When the key under way was handed on, in seconds of the event loop; ``None``: none is under way."""

    async def take(self, typed: Typed) -> None:
        """Hand this on, now or when its turn comes."""
        self._waiting.append(typed)
        if self._began is None:
            await self._next()
        elif self._loop_time() - self._began > PATIENCE_S:
            self._began = self._loop_time()
            self._climb(self._target(), partial(self._settle, self._began, None))

    async def _next(self) -> None:
        if not self._waiting:
            self._began = None
            return
        typed = self._waiting.popleft()
        self._began = began = self._loop_time()
        target = self._target()
        await self._hand_on(typed)
        if isinstance(target, Input) and isinstance(typed, events.Key) and typed.is_printable:
            target.call_later(self._app.call_later, self._through, began)  # it stays in the line
        else:
            self._climb(target, partial(self._settle, began, None))

    def _climb(self, node: DOMNode, then: Callable[[], object]) -> None:
        """Call ``then`` when this and all above it have done what lies in their queues."""
        above = None if node is self._app else node.parent or self._app
        step = then if above is None else partial(self._climb, above, then)
        if not node.call_later(step) and above is not None:
            step()  # this one is being taken down, and does nothing any more

    async def _settle(self, began: float, before: Widget | None) -> None:
        """Climb from where the focus is now, unless the climb ``before`` began there too."""
        target = self._target()
        if target is before:
            await self._through(began)
        else:
            self._climb(target, partial(self._settle, began, target))

    async def _through(self, began: float) -> None:
        if began == self._began:  # else it was asked again since
            await self._next()

    def _target(self) -> Widget:
        return self._app.focused or self._app.screen

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()
