"""Every action of the program, once: key, words, and the command that does the same in a shell.

Bindings, footer, help and palette are made from this table; people remap keys by ``id`` in ``[ui] keymap``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding

EVERYWHERE = "everywhere"


@dataclass(frozen=True)
class Action:
    """One thing a person can do.

    Attributes:
        id: Stable name; the Textual action is ``action_<id with underscores>`` unless ``run`` says otherwise.
        key: Default key or keys (comma separated), in Textual's spelling.
        title: Two or three words for the footer and the palette.
        tooltip: One sentence of what it does.
        group: Heading in the help screen.
        cli: The equivalent command; empty where there is none.
        scope: The screen it belongs to, or ``everywhere``.
        mutates: Whether it changes the mesh, and so is off under ``--read-only``.
        footer: Whether the footer shows it.
        key_display: How the key is written for people, where Textual's spelling is not it.
        run: The Textual action string, if not derived from ``id``.
        also: Further screens on which it is offered.
    """

    id: str
    key: str
    title: str
    tooltip: str
    group: str
    cli: str = ""
    scope: str = EVERYWHERE
    mutates: bool = False
    footer: bool = False
    key_display: str = ""
    run: str = ""
    also: tuple[str, ...] = ()

    @property
    def action(self) -> str:
        """The Textual action string."""
        return self.run or self.id.replace("-", "_")

    @property
    def method(self) -> str:
        """The action's name alone, as ``check_action`` gets it."""
        return self.action.partition("(")[0].removeprefix("app.").removeprefix("screen.")

    @property
    def shown_key(self) -> str:
        """The first key, for people."""
        return self.key_display or self.key.partition(",")[0]

    def binding(self) -> Binding:
        """This action as a Textual binding, remappable by its id."""
        return Binding(self.key, self.action, self.title, id=self.id, tooltip=self.tooltip, show=self.footer)

    def on(self, scope: str) -> bool:
        """Whether a screen offers this action as its own."""
        return self.scope == scope or scope in self.also


@dataclass(frozen=True)
class Place:
    """A main screen: its name, key, and title in the tab line (and a shorter one for 80 columns)."""

    name: str
    key: str
    title: str
    tooltip: str
    cli: str = ""
    tab: bool = True


PLACES = (
    Place("overview", "1", "Overview", "who is awake, and what would happen if it died now", "instar status"),
    Place("machines", "2", "Machines", "every machine of the mesh", "instar machines"),
    Place("lease", "3", "Lease", "epoch, validity, evidence and history", "instar lease"),
    Place("tail", "4", "Tail", "how far each copy of the conversation is behind", "instar status"),
    Place("topics", "5", "Topics", "where each topic runs, and why", "instar status"),
    Place("conversation", "6", "Talk", "the conversation of one topic", "instar log TOPIC --follow"),
    Place("events", "7", "Events", "everything that happened", "instar status --watch"),
    Place(
        "health",
        "8",
        "Health",
        "what is wrong, tried out, shared and installed",
        "instar doctor",
    ),
    Place("pair", "p", "Pair", "let another machine join with a code", "instar pair", tab=False),
    Place("join", "j", "Join", "join the mesh of another machine", "instar join URL --code CODE", tab=False),
)

_GO = tuple(
    Action(
        f"go-{place.name}",
        "j,J" if place.name == "join" else place.key,  # j alone is "down" where a table has the focus
        place.title,
        place.tooltip,
        "Screens",
        place.cli,
        run=f"go('{place.name}')",
    )
    for place in PLACES
)

ACTIONS: tuple[Action, ...] = (
    *_GO,
    Action(
        "wakeup",
        "w",
        "wake here",
        "make this machine the awake one",
        "Roles",
        "instar wakeup",
        mutates=True,
        also=("overview", "machines", "lease", "pair"),
    ),
    Action(
        "hand-off",
        "h",
        "hand off",
        "make another machine the awake one",
        "Roles",
        "instar handoff MACHINE",
        mutates=True,
        also=("overview", "machines", "lease"),
    ),
    Action(
        "force-wakeup",
        "W",
        "take over by force",
        "wake here although the holder cannot be reached; asks you to vouch for it",
        "Roles",
        "instar wakeup --force",
        mutates=True,
    ),
    Action(
        "heal-lease",
        "H",
        "heal",
        "end a split brain: this machine's line goes on; says first what was seen and what follows",
        "Roles",
        "instar lease heal",
        mutates=True,
        also=("overview", "lease"),
    ),
    Action(
        "move-hub",
        "m",
        "move the hub",
        "move the lease to another hub: a path, a git URL, witness:MACHINE, etcd://host:port or embedded",
        "Roles",
        "instar hub URL",
        "lease",
        mutates=True,
        footer=True,
    ),
    Action(
        "rename",
        "r",
        "rename",
        "give the selected machine another nickname",
        "Machines",
        "instar nickname NAME",
        "machines",
        mutates=True,
        footer=True,
    ),
    Action(
        "remove",
        "x",
        "remove",
        "take the selected machine out of the mesh, for good",
        "Machines",
        "instar machines remove MACHINE",
        "machines",
        mutates=True,
        footer=True,
    ),
    Action(
        "open-topic",
        "enter",
        "open",
        "read and write in the topic",
        "Topics",
        "instar log TOPIC --follow",
        "topics",
        footer=True,
    ),
    Action(
        "transfer",
        "t",
        "transfer",
        "move the topic to another machine",
        "Topics",
        "instar transfer TOPIC MACHINE",
        "topics",
        mutates=True,
        footer=True,
        also=("conversation",),
    ),
    Action(
        "unpin",
        "u",
        "unpin",
        "let the mesh place the topic again",
        "Topics",
        "instar unpin TOPIC",
        "topics",
        mutates=True,
        footer=True,
    ),
    Action(
        "undo-transfer",
        "z",
        "take back",
        "undo the last transfer",
        "Topics",
        "instar transfer TOPIC MACHINE",
        "topics",
        mutates=True,
        footer=True,
        also=("conversation",),
    ),
    Action(
        "new-topic",
        "n",
        "new topic",
        "open the conversation of a new topic",
        "Topics",
        "instar send TOPIC TEXT",
        "topics",
        footer=True,
        also=("conversation",),
    ),
    Action(
        "compose",
        "i,enter",
        "write",
        "write a message in this topic",
        "Conversation",
        "instar send TOPIC TEXT",
        "conversation",
        mutates=True,
        footer=True,
    ),
    Action(
        "answer",
        "a",
        "answer",
        "answer the oldest waiting message yourself (manual agent)",
        "Conversation",
        "",
        "conversation",
        mutates=True,
        footer=True,
    ),
    Action(
        "send-undecided",
        "s",
        "send it",
        "send the undecided reply; it may arrive twice",
        "Conversation",
        "instar outbox resolve ID send",
        "conversation",
        mutates=True,
        also=("health",),
    ),
    Action(
        "drop-undecided",
        "d",
        "drop it",
        "drop the undecided reply; it may never arrive",
        "Conversation",
        "instar outbox resolve ID drop",
        "conversation",
        mutates=True,
        also=("health",),
    ),
    Action(
        "previous-topic",
        "left_square_bracket",
        "previous topic",
        "the conversation before this one in the topic list",
        "Conversation",
        "",
        "conversation",
        key_display="[",
    ),
    Action(
        "next-topic",
        "right_square_bracket",
        "next topic",
        "the conversation after this one in the topic list",
        "Conversation",
        "",
        "conversation",
        footer=True,
        key_display="]",
    ),
    Action(
        "follow",
        "f",
        "follow",
        "keep the newest event in sight",
        "Events",
        "instar status --watch",
        "events",
        footer=True,
    ),
    Action(
        "new-code",
        "n",
        "new code",
        "void this code and mint another",
        "Pairing",
        "instar pair",
        "pair",
        mutates=True,
        footer=True,
    ),
    Action(
        "cancel-code",
        "escape",
        "cancel the code",
        "void the code and go back",
        "Pairing",
        "",
        "pair",
        mutates=True,
        footer=True,
        key_display="esc",
    ),
    Action(
        "confirm-sas",
        "enter",
        "same on both",
        "the symbols are the same on both machines: admit it",
        "Pairing",
        "",
        "pair",
        mutates=True,
    ),
    Action(
        "refuse-sas",
        "x",
        "not the same",
        "the symbols differ: refuse the machine",
        "Pairing",
        "",
        "pair",
        mutates=True,
    ),
    Action(
        "verify",
        "v",
        "drill",
        "try every component with every machine; the awake role goes there and back",
        "Health",
        "instar verify",
        "health",
        mutates=True,
        footer=True,
    ),
    Action(
        "set-gate",
        "o",
        "gates",
        "open or shut a gate by hand, or leave it to the drills",
        "Health",
        "instar flags GATE open|shut|auto",
        "health",
        mutates=True,
        footer=True,
    ),
    Action(
        "examine",
        "c",
        "check again",
        "let the doctor look again at this home and its mesh",
        "Health",
        "instar doctor",
        "health",
        footer=True,
    ),
    Action(
        "update",
        "u",
        "update",
        "restart every machine into the version installed on it, the awake one last; says first what follows",
        "Health",
        "instar update",
        "health",
        mutates=True,
        footer=True,
    ),
    Action(
        "sync-seen",
        "e",
        "seen",
        "forget the refused commits and conflicts shown: you looked at them",
        "Health",
        "instar sync --seen",
        "health",
        mutates=True,
        footer=True,
    ),
    Action(
        "filter", "slash", "filter", "show only rows with these words; ! inverts", "View", key_display="/"
    ),
    Action(
        "sort",
        "s",
        "sort",
        "sort by the next column; S reverses",
        "View",
        "",
        "topics",
        also=("machines", "tail"),
    ),
    Action(
        "sort-reverse",
        "S",
        "reverse",
        "turn the order round",
        "View",
        "",
        "topics",
        also=("machines", "tail"),
    ),
    Action("copy", "y", "copy", "copy the selected id, code or command", "View"),
    Action("save-svg", "ctrl+s", "screenshot", "save this screen as an SVG file", "View", key_display="^s"),
    Action("palette", "ctrl+p,colon", "palette", "find any action by name", "View", key_display="^p"),
    Action(
        "help",
        "question_mark,f1",
        "keys",
        "all keys and their commands",
        "View",
        "instar --help",
        key_display="?",
    ),
    Action(
        "back",
        "escape",
        "back",
        "back to the overview; from there, quit",
        "View",
        key_display="esc",
        run="leave_screen",
    ),
    Action("quit-app", "ctrl+q,q", "quit", "leave the control centre", "View", key_display="q"),
)

BY_ID = {action.id: action for action in ACTIONS}
MUTATING_METHODS = frozenset(action.method for action in ACTIONS if action.mutates)


def app_bindings() -> list[Binding]:
    """Bindings valid on every screen."""
    return [action.binding() for action in ACTIONS if action.scope == EVERYWHERE]


def screen_bindings(scope: str) -> list[Binding]:
    """Bindings of one screen beyond those valid everywhere."""
    return [action.binding() for action in ACTIONS if action.scope != EVERYWHERE and action.on(scope)]


def footer_actions(scope: str, extra: Iterable[str] = ()) -> list[Action]:
    """What the footer of a screen shows, in order: its own first, then those it shares."""
    own = [action for action in ACTIONS if action.on(scope) and (action.footer or action.scope != scope)]
    return own + [BY_ID[name] for name in extra]


def bad_keymap_ids(keymap: dict[str, str]) -> list[str]:
    """Ids in a person's keymap that name no action."""
    return sorted(set(keymap) - set(BY_ID))
