"""The control centre: screens over one ``MeshState``, keys from one table, and a node that starts late.

The node is connected only after the first frame is painted, so that the program is there at once; it is let
go (an embedded node is stopped cleanly) after the terminal has been given back.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.screen import Screen
from textual.theme import Theme

from instar_node.errors import InstarError
from instar_tui import actions, theme
from instar_tui.actions import Action
from instar_tui.signals import let_go_of_a_lost_terminal
from instar_tui.state import MeshState
from instar_tui.typed_ahead import TypedAhead

if TYPE_CHECKING:
    from textual.command import Provider
    from textual.timer import Timer

    from instar_node.clock import Clock
    from instar_node.config import Config, NodeOptions, UiSettings
    from instar_node.storage.home import Home
    from instar_tui.embedding import Connection
    from instar_tui.operations import Operations
    from instar_tui.renewal import Renewal
    from instar_tui.unsent import Unsent

log = logging.getLogger("instar.tui")

TICK_S = 0.2
"""How often countdowns are redrawn while something drains; at other times there is no timer at all."""
UPDATE_NOTICE_S = 2.0
"""How long it is told that the program is about to restart for an update."""
FRAME_OUT_S = 0.02
"""So long nothing is done after the first frame: the thread that writes it has the interpreter to itself."""
WARM_UP_S = 0.1
"""Pause before each module that is loaded ahead of its screen."""


def _overview() -> Screen[Any]:
    from instar_tui.screens.overview import OverviewScreen

    return OverviewScreen()


def _machines() -> Screen[Any]:
    from instar_tui.screens.machines import MachinesScreen

    return MachinesScreen()


def _lease() -> Screen[Any]:
    from instar_tui.screens.lease import LeaseScreen

    return LeaseScreen()


def _tail() -> Screen[Any]:
    from instar_tui.screens.tail import TailScreen

    return TailScreen()


def _topics() -> Screen[Any]:
    from instar_tui.screens.topics import TopicsScreen

    return TopicsScreen()


def _conversation() -> Screen[Any]:
    from instar_tui.screens.conversation import ConversationScreen

    return ConversationScreen()


def _events() -> Screen[Any]:
    from instar_tui.screens.events import EventsScreen

    return EventsScreen()


def _health() -> Screen[Any]:
    from instar_tui.screens.health import HealthScreen

    return HealthScreen()


def _pair() -> Screen[Any]:
    from instar_tui.screens.pair import PairScreen

    return PairScreen()


def _join() -> Screen[Any]:
    from instar_tui.screens.join import JoinScreen

    return JoinScreen()


def _provider() -> type[Provider]:
    from instar_tui.palette import MeshCommands

    return MeshCommands


class InstarApp(App[None]):
    """The whole terminal program over one connection to a node.

    Args:
        connect: Makes the connection; awaited after the first frame is painted.
        ui: Theme and key remapping from ``config.toml``.
        read_only: Watch only; every action that changes the mesh is off.
        clock: What countdowns and ages are counted by; the system's own if not given.
        unsent_file: Where a text that is not sent waits while an update restarts the program.
    """

    TITLE = "instar"
    CSS_PATH = theme.STYLES / "frame.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS: ClassVar[set[Any]] = {_provider}
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (150, "-wide")]  # noqa: RUF012 (an instance variable of App)
    VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]  # noqa: RUF012
    DEFAULT_MODE = "overview"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "overview": _overview,
        "machines": _machines,
        "lease": _lease,
        "tail": _tail,
        "topics": _topics,
        "conversation": _conversation,
        "events": _events,
        "health": _health,
        "pair": _pair,
        "join": _join,
    }
    BINDINGS: ClassVar[list[BindingType]] = [*actions.app_bindings()]

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        ui: UiSettings,
        *,
        read_only: bool = False,
        clock: Clock | None = None,
        unsent_file: Path | None = None,
    ) -> None:
        self._plain = "NO_COLOR" in os.environ  # Textual takes it out of the environment
        super().__init__(ansi_color=True if self._plain else None)  # so that the filter drops all colour
        self.mesh = MeshState(connect, clock)
        self.mesh.listener = self._on_mesh
        self.read_only = read_only
        self.unsent: Callable[[], Unsent | None] = lambda: None
        """The text that is typed and not sent, if there is one; the conversation screen sets it."""
        self.taken_up: Unsent | None = None
        """Such a text from before a restart, until it is in its line again."""
        self._unsent_file = unsent_file
        self.painted = False
        """Whether the first frame is out; until then only the frame of a screen is built."""
        self._ui = ui
        self._ticker: Timer | None = None
        self._operations: Operations | None = None
        self._typed = TypedAhead(self, super().on_event)
        for own in theme.OWN:
            self.register_theme(own)
        # Set without its watcher, which would read all styles twice more before the first frame.
        self.set_reactive(App.theme, self._wanted_theme())
        self.set_class(self.current_theme.dark, "-dark-mode", update=False)
        self.set_class(not self.current_theme.dark, "-light-mode", update=False)
        self.stylesheet.set_variables(self.get_css_variables())

    def _wanted_theme(self) -> str:
        if self._plain:
            return theme.NO_COLOR_THEME
        wanted = self._ui.theme or os.environ.get("TEXTUAL_THEME", "")
        return wanted if wanted in self.available_themes else theme.DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        current: Theme = self.current_theme
        return {} if current in theme.OWN else theme.tokens(current)

    # -- life ---------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        self.set_keymap(self._ui.keymap)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal)
        # Not through the loop: Textual writes to the terminal again at the SIGCONT that comes with a hang-up.
        signal.signal(signal.SIGHUP, lambda *_: self._on_hang_up(loop))
        self.theme_changed_signal.subscribe(self, lambda _: self.redraw())

    def on_ready(self) -> None:
        """The first frame is on the screen: now the node may start."""
        self.call_after_refresh(self._begin)

    def _load_styles(self) -> None:
        """Read the styles of all screens, in one pass: each alone would cost a whole parse."""
        for path in sorted(theme.STYLES.glob("*.tcss")):
            if path != self.CSS_PATH:
                self.stylesheet.read(path)
        self.stylesheet.reparse()

    async def _begin(self) -> None:
        await asyncio.sleep(FRAME_OUT_S)
        self.painted = True
        self._load_styles()
        await self.base_screen().fill()
        self._take_up_unsent()
        gc.freeze()  # what is loaded now stays: the collector need not look at it again
        gc.enable()
        self._ticker = self.set_interval(TICK_S, self._tick)
        self.run_worker(self.mesh.run(), name="mesh", exit_on_error=True)
        self.run_worker(self._warm_up(), name="warm-up", exit_on_error=True)
        for bad in actions.bad_keymap_ids(self._ui.keymap):
            self.notify(
                f"[ui] keymap: there is no action {bad!r}; ? lists them", severity="warning", markup=False
            )
        if self._ui.theme and self._ui.theme not in self.available_themes:
            self.notify(f"[ui] theme: there is no theme {self._ui.theme!r}", severity="warning", markup=False)

    async def _warm_up(self) -> None:
        """Load the other screens' modules one by one, so that the first visit is as quick as the next."""
        for place in actions.PLACES:
            await asyncio.sleep(WARM_UP_S)
            import_module(f"instar_tui.screens.{place.name}")

    def _on_signal(self) -> None:
        """SIGTERM or SIGHUP: give the terminal back (Textual alone would not) and leave in order."""
        self.exit()

    def _on_hang_up(self, loop: asyncio.AbstractEventLoop) -> None:
        let_go_of_a_lost_terminal()
        loop.call_soon_threadsafe(self._on_signal)

    def leave_for_update(self) -> None:
        """The node in this process was updated: say so, and end, so that the installed program takes over."""
        self.notify("restarting into the version that is installed now", title="update", markup=False)
        self.set_timer(UPDATE_NOTICE_S, self._exit_with_unsent)

    def _exit_with_unsent(self) -> None:
        unsent = self.unsent()
        if unsent is None or self._unsent_file is None:
            self.exit()
            return
        from instar_tui.unsent import keep

        try:
            keep(self._unsent_file, unsent)
        except InstarError as error:
            self.exit(message=f"{error.message}. Not sent in {unsent.topic}: {unsent.text}")
        else:
            self.exit()

    def _take_up_unsent(self) -> None:
        """Go on where the person was typing before the restart."""
        if self._unsent_file is None or self.read_only or not self._unsent_file.exists():
            return
        from instar_tui.unsent import take

        self.taken_up = take(self._unsent_file)
        if self.taken_up is not None:
            self.open_topic(self.taken_up.topic)

    def _fatal_error(self) -> None:
        """As Textual's, without the values of local variables: one of them may be a pairing code."""
        from rich.segment import Segments
        from rich.traceback import Traceback

        log.error("the control centre failed", exc_info=True)
        traceback = Traceback(show_locals=False, width=None)
        self._exit_renderables.append(Segments(self.console.render(traceback, self.console.options)))
        self._close_messages_no_wait()

    # -- data to screens ----------------------------------------------------------------------------------

    @property
    def operations(self) -> Operations:
        """What changes the mesh; loaded when first used."""
        if self._operations is None:
            from instar_tui.operations import Operations

            self._operations = Operations(self)
        return self._operations

    def base_screen(self) -> Any:
        """The main screen in view, also while a dialogue lies over it."""
        return self.screen_stack[0] if self.screen_stack else None

    def _on_mesh(self, kinds: frozenset[str]) -> None:
        if not self.is_running:
            return
        show = getattr(self.base_screen(), "show", None)
        if show is not None:
            show(kinds)
        if self._ticker is not None:
            if self.mesh.draining or self._screen_ticks():
                self._ticker.resume()
            else:
                self._ticker.pause()

    def publish(self, kind: str) -> None:
        """Redraw after a change made on this side, such as the step of an operation."""
        self._on_mesh(frozenset({kind}))

    def redraw(self) -> None:
        """Draw everything on the screen in view again."""
        self._on_mesh(frozenset({"all"}))

    def _screen_ticks(self) -> bool:
        return bool(getattr(self.base_screen(), "ticking", False))

    def _tick(self) -> None:
        tick = getattr(self.base_screen(), "tick", None)
        if tick is not None and self.is_running:
            tick()

    # -- keys ---------------------------------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        """Keys are taken in order, each when the one before it is through; all else at once."""
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            await self._typed.take(event)
        else:
            await super().on_event(event)

    def allows(self, action: Action) -> bool:
        """Whether this action may be run now."""
        return not (self.read_only and action.mutates)

    def key_of(self, action: Action) -> str:
        """The key of an action for people, after remapping."""
        remapped = self._ui.keymap.get(action.id)
        return remapped.partition(",")[0] if remapped else action.shown_key

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if self.read_only and action in actions.MUTATING_METHODS:
            return None
        return super().check_action(action, parameters)

    def run_by_id(self, action_id: str) -> None:
        """Run an action of the table, as its key would on the screen in view."""
        action = actions.BY_ID[action_id]
        if not self.allows(action):
            self.notify("this is a read-only view", severity="warning")
            return
        screen = self.base_screen()
        own = hasattr(screen, f"action_{action.method}")
        target = screen if own else self
        self.call_later(self.run_action, action.action, target)

    def action_go(self, place: str) -> None:
        """Show a main screen."""
        self.switch_mode(place)

    def open_topic(self, topic: str) -> None:
        """Show the conversation of a topic."""
        self.mesh.watched_topic = topic
        self.action_go("conversation")

    def action_leave_screen(self) -> None:
        if self.current_mode != "overview":
            self.switch_mode("overview")
        else:
            self.action_quit_app(ask=True)

    async def action_quit(self) -> None:
        self.action_quit_app()

    def action_quit_app(self, ask: bool = False) -> None:
        """Leave; asks first when that would leave the mesh without an awake machine."""
        self.operations.quit(ask=ask)

    def action_help_quit(self) -> None:
        """``ctrl+c`` where nothing is selected; Textual alone does no more than to name its own key."""
        self.action_quit_app(ask=True)

    def action_palette(self) -> None:
        self.action_command_palette()

    def action_help(self) -> None:
        from instar_tui.screens.help import HelpScreen

        self.push_screen(HelpScreen())

    def action_save_svg(self) -> None:
        """Save the screen as it is into the current folder; a pairing code that is shown is on it."""
        path = Path.cwd() / f"instar-{self.current_mode}-{datetime.now():%H%M%S}.svg"
        try:
            path.write_text(self.export_screenshot(), encoding="utf-8")
        except OSError as error:
            self.notify(f"{path}: {error.strerror}", severity="error", markup=False)
        else:
            self.notify(f"saved {path}", markup=False)

    def action_copy(self) -> None:
        """Copy what the screen has selected, through the terminal (OSC 52)."""
        selection = self.screen.get_selected_text()
        offered = getattr(self.base_screen(), "copyable", None)
        text = selection or (offered() if offered is not None else "")
        if not text:
            self.notify("nothing to copy here", severity="warning")
            return
        self.copy_to_clipboard(text)
        self.notify(f"copied  {text}" if len(text) < 100 else "copied", markup=False, timeout=2)

    def action_wakeup(self) -> None:
        self.operations.wakeup()

    def action_force_wakeup(self) -> None:
        self.operations.wakeup(force=True)

    def action_heal_lease(self) -> None:
        self.operations.heal()

    def action_hand_off(self) -> None:
        chosen = getattr(self.base_screen(), "selected_machine", None)
        self.operations.hand_off(chosen() if chosen is not None else None)

    def action_filter(self) -> None:
        self._on_grid("start_filter")

    def _on_grid(self, method: str) -> None:
        grid = getattr(self.base_screen(), "grid", None)
        if grid is not None:
            getattr(grid(), method)()
        else:
            self.notify("no table on this screen; 7 shows all events", severity="warning")

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield SystemCommand("theme", "change the colours", self.action_change_theme)

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)


def run_tui(
    home: Home, config: Config, options: NodeOptions, *, read_only: bool, mouse: bool, renewal: Renewal
) -> int:
    """Run the control centre on a home until the person leaves, or an update of the embedded node asks for a
    ``renewal``. Returns the exit code.

    Embeds the node, or attaches to the daemon that already runs on this home. SIGTERM and SIGHUP end it in
    order: first the terminal is restored, then the node is stopped.
    """

    async def connect() -> Connection:
        from instar_tui.embedding import open_api

        return await open_api(home, config, options)

    from instar_tui.screen_log import screen_log

    async def main() -> int:
        app = InstarApp(connect, config.ui, read_only=read_only, unsent_file=home.unsent)
        loop = asyncio.get_running_loop()
        renewal.leave = partial(loop.call_soon_threadsafe, app.call_later, app.leave_for_update)
        try:
            await app.run_async(mouse=mouse)
        finally:
            await app.mesh.close()
        return app.return_code or 0

    with screen_log(home, config):
        return asyncio.run(main())
