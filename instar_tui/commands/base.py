"""What all commands share: the ``--home`` and ``--json`` options in any place, examples, and lazy loading."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from instar_node.api.blocking_client import BlockingNodeApi
    from instar_node.errors import InstarError
    from instar_node.storage.home import Home
    from instar_tui.commands.output import Output


class Invocation:
    """One run of the program: which home, and how to answer."""

    def __init__(self) -> None:
        self.home_option: str | None = None
        self.json = False

    @property
    def home(self) -> Home:
        """The home that was asked for."""
        from instar_tui.place import chosen_home

        return chosen_home(self.home_option)

    @property
    def api(self) -> BlockingNodeApi:
        """The node of this home; its calls raise ``node-not-running`` when there is none."""
        from instar_node.api.blocking_client import BlockingNodeApi

        return BlockingNodeApi(self.home)

    @property
    def out(self) -> Output:
        from instar_tui.commands.output import Output

        return Output(as_json=self.json)

    def sure(self, question: str, yes: bool) -> bool:
        """Ask a person; a script that spells out the command has decided."""
        return yes or self.json or not sys.stdin.isatty() or click.confirm(question, err=True)

    def agreed(self, error: InstarError, yes: bool) -> bool:
        """Whether to go on after the node asked for confirmation: ``--yes``, or a person says so."""
        if yes:
            return True
        if self.json or not sys.stdin.isatty():
            return False
        from instar_tui.safe_text import shown

        return click.confirm(shown(str(error.extra.get("prompt") or error.message)), err=True)

    def vouched(self, error: InstarError, yes: bool) -> list[str]:
        """The unreachable machines that whoever goes on vouches for; raises ``error`` when nobody does."""
        if error.code != "needs-confirmation" or not self.agreed(error, yes):
            raise error
        return [str(machine) for machine in error.extra.get("vouch", [])]


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def _set_home(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).home_option = value


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Invocation).json = True


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--home"],
            metavar="DIR",
            expose_value=False,
            callback=_set_home,
            help="Data folder of the node (or INSTAR_HOME).",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set_json,
            help="Answer in JSON.",
        ),
    ]


class _Explained(click.Command):
    """What commands and groups share: the common options, and examples under the help."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, as typed."""
        write_examples(self.examples, formatter)


class Command(_Explained):
    """A command that does one thing."""


class Group(_Explained, click.Group):
    """A command with subcommands; run without one it does its own work."""

    command_class = Command


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """An ``Examples`` section; its lines are never wrapped."""
    if not examples:
        return
    with formatter.section("Examples"):
        for line in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Entry(NamedTuple):
    """One top-level command: where it is, and its line in the list of commands."""

    module: str
    attribute: str
    help: str


class LazyGroup(Group):
    """A group that imports a command's module when the command is used, not when it is listed."""

    def __init__(self, *args: Any, entries: dict[str, dict[str, Entry]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = entries
        self.entries = {name: entry for section in entries.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the help."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(entry.module), entry.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and an unknown name gets the nearest known ones."""
        name = args[0]
        if name not in self.entries and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, self.entries, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"There is no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands under its headings."""
        for heading, section in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, entry.help) for name, entry in section.items()])


def command(name: str, *examples: str, **options: Any) -> Callable[[Callable[..., Any]], Command]:
    """``@command("send", "instar send work hello")``: a ``Command`` with its examples."""
    return click.command(name, cls=Command, examples=examples, **options)


def group(name: str, *examples: str, **options: Any) -> Callable[[Callable[..., Any]], Group]:
    """A ``Group`` with its examples; without a subcommand its own function does the work."""
    return click.group(name, cls=Group, examples=examples, invoke_without_command=True, **options)
