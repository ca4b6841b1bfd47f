"""What all main screens share: the frame around them and how data reaches them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widget import Widget
from textual.worker import Worker

from instar_node.errors import InstarError
from instar_tui.actions import EVERYWHERE
from instar_tui.widgets.chrome import AlertBand, Header, KeyLine, OperationStrip, Tabs
from instar_tui.widgets.live import Live

if TYPE_CHECKING:
    from instar_tui.actions import Action
    from instar_tui.app import InstarApp
    from instar_tui.state import MeshState

log = logging.getLogger("instar.tui")


def _reached(breakpoints: list[tuple[int, str]], cells: int) -> str:
    """The class of the highest breakpoint that a width or height reaches."""
    return max((least, name) for least, name in breakpoints if cells >= least)[1]


class Body(Vertical):
    """The part of a screen between its frame; empty in the very first frame, so that it comes at once."""

    late: bool = False
    """Whether it was left empty for the first frame and is still to be built."""

    def compose(self) -> ComposeResult:
        screen = cast(MeshScreen, self.screen)
        self.late = not screen.instar.painted
        if not self.late:
            yield from screen.body()

    def on_mount(self) -> None:
        """All below is mounted too: the screen may look for its widgets now."""
        if self.children:
            cast(MeshScreen, self.screen).complete()


class MeshScreen(Screen[None]):
    """A main screen: header, tabs, alert band, its body, operation strip, keys.

    Subclasses give ``body`` and ``refresh_body``. Only the screen in view is told of changes; one that comes
    back into view is told that all may have changed.
    """

    AUTO_FOCUS: ClassVar[str | None] = "Grid"
    BINDINGS: ClassVar[list[BindingType]] = []
    SCOPE: ClassVar[str] = ""
    FOOTER: ClassVar[tuple[str, ...]] = ()
    ticking: bool = False
    """Whether the screen wants ticks although the lease does not drain."""
    whole: bool = False
    """Whether the body is built."""

    def __init__(self) -> None:
        super().__init__()
        # Its styles are read with those of the app: else Textual would read all of them anew for each screen.
        self._css_update_count = self.app._css_update_count
        # Textual tells a screen its size only after it was laid out once, and what is seen would jump.
        size = self.app.size
        self.add_class(_reached(self.app.HORIZONTAL_BREAKPOINTS or [], size.width))
        self.add_class(_reached(self.app.VERTICAL_BREAKPOINTS or [], size.height))

    def compose(self) -> ComposeResult:
        yield Header(classes="header")
        yield Tabs(classes="tabs")
        yield AlertBand(classes="alert")
        yield Body(id="body")
        yield OperationStrip(classes="operation")
        yield KeyLine(self.SCOPE, self.FOOTER)

    def _compositor_refresh(self) -> None:
        """Textual renders a frame also while the app holds frames back (until it has started, above all),
        throws it away, and takes it for shown: the first real one would come later by a tick of its timer."""
        if not self.app._batch_count:
            super()._compositor_refresh()

    def body(self) -> Iterable[Widget]:
        """The widgets of this screen."""
        raise NotImplementedError

    def copyable(self) -> str:
        """What ``y`` copies now; empty where nothing is selected."""
        return ""

    def offers(self, action: Action) -> bool:
        """Whether an action of this screen makes sense now; the footer shows no other."""
        if action.group == "Roles" and action.scope == EVERYWHERE:
            return self._offers_role(action.id)
        return action.id != "copy" or not self._drawable or bool(self.copyable())

    def _offers_role(self, action_id: str) -> bool:
        """Waking the awake machine, handing off to nobody and healing what is whole would do nothing."""
        status, me = self.mesh.status, self.mesh.me()
        split = status is not None and status.health.split_brain is not None
        if action_id == "heal-lease":
            return split
        if action_id == "hand-off":
            return not split and any(machine.role == "standby" for machine in self.mesh.machines())
        return me is not None and me.role != "awake" and not split

    def refresh_body(self, kinds: frozenset[str]) -> None:
        """Bring the body up to date; ``kinds`` are the events since the last time."""
        for live in self.query("#body Live").results(Live):
            live.sync()

    @property
    def instar(self) -> InstarApp:
        return cast("InstarApp", self.app)

    @property
    def mesh(self) -> MeshState:
        return self.instar.mesh

    def read(self, group: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Fetch what only this screen shows; a newer fetch of the group replaces an older one."""

        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                log.warning("%s: %s", group, error, exc_info=not isinstance(error, InstarError))
                if self.mesh.link == "live":
                    self.notify(f"{group}: {error}", severity="warning", markup=False)

        worker: Worker[None] = self.run_worker(guarded, group=group, exclusive=True)
        worker.name = group

    def show(self, kinds: frozenset[str]) -> None:
        """Draw the state as it is now."""
        if not self.is_mounted:
            return
        if self._drawable:
            self.refresh_body(kinds)
        self._frame()  # last: the keys it offers are those for what the body shows

    def tick(self) -> None:
        """Draw what moves by itself: countdowns and ages."""
        self._frame()
        if self._drawable:
            self.tick_body()

    def tick_body(self) -> None:
        """The part of ``tick`` below the header."""

    @property
    def _drawable(self) -> bool:
        """Whether the body is built, and not taken down already because the program ends."""
        return self.whole and bool(self.query("#body > *"))

    def _frame(self) -> None:
        for child in self.children:
            if isinstance(child, Live):
                child.sync()

    async def fill(self) -> None:
        """Build the body, if it was left out of the first frame: keys may have gone to any screen since."""
        for body in self.query(Body):
            if body.late:
                body.late = False
                await body.recompose()
                self.complete()

    def complete(self) -> None:
        """The body is built: draw it."""
        self.whole = True
        self.show(frozenset({"all"}))

    def on_descendant_focus(self) -> None:
        """The keys that are valid may be others."""
        self._frame()

    def on_descendant_blur(self) -> None:
        self._frame()

    def on_grid_typing(self) -> None:
        self._frame()

    async def on_screen_resume(self) -> None:
        if self.instar.painted:
            await self.fill()
        self.show(frozenset({"all"}))
        self.instar.publish("resume")
