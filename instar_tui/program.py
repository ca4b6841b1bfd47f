"""The command line: ``instar …`` and ``instar-tui …``, one program.

Nothing heavy is imported here: a command's module is loaded when the command runs, Textual only for the
screens, aiohttp only for the node.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from instar_node.errors import InstarError
from instar_tui.commands.base import Entry, Invocation, LazyGroup
from instar_tui.exit_codes import ExitCode, exit_code_of

_C = "instar_tui.commands."
COMMANDS: dict[str, dict[str, Entry]] = {
    "See": {
        "status": Entry(_C + "overview", "status", "Everything on one page; --watch keeps it current"),
        "whoami": Entry(_C + "identity", "whoami", "This machine"),
        "machines": Entry(_C + "identity", "machines", "All machines; remove one"),
        "lease": Entry(_C + "lease", "lease", "Who is awake, on whose evidence, since when"),
        "doctor": Entry(_C + "doctor", "doctor", "What is wrong, and how to mend it"),
    },
    "Machines": {
        "pair": Entry(_C + "pairing", "pair", "Let another machine join: mint a code and wait"),
        "join": Entry(_C + "pairing", "join", "Join the mesh of another machine"),
        "wakeup": Entry(_C + "roles", "wakeup", "Make this machine the awake one"),
        "hub": Entry(_C + "hub", "hub", "Where the lease lies; move it to another hub"),
        "handoff": Entry(_C + "roles", "handoff", "Make another machine the awake one"),
        "leave": Entry(_C + "identity", "leave", "Take this machine out of the mesh"),
        "nickname": Entry(_C + "pool", "nickname", "Rename this machine"),
    },
    "Conversation": {
        "send": Entry(_C + "conversation", "send", "Send a message to the agent"),
        "log": Entry(_C + "conversation", "log", "Read a conversation"),
        "outbox": Entry(_C + "conversation", "outbox", "Replies on their way; decide undecided ones"),
    },
    "Topics": {
        "placement": Entry(_C + "pool", "placement", "Where a topic runs, and why"),
        "transfer": Entry(_C + "pool", "transfer", "Move a topic to another machine"),
        "unpin": Entry(_C + "pool", "unpin", "Let a topic run anywhere again"),
    },
    "Safety": {
        "verify": Entry(_C + "verification", "verify", "Try everything out between two machines, live"),
        "flags": Entry(_C + "verification", "flags", "Each gate, and why it is open or shut"),
        "update": Entry(_C + "updates", "update", "Bring all machines to the installed version"),
    },
    "Program": {
        "sync": Entry(_C + "sync", "sync", "The shared state: what waits, and what was refused"),
        "secret": Entry(_C + "secrets", "secret", "Keep what agents need and nobody else should see"),
        "config": Entry(_C + "settings", "config", "Read and change settings"),
        "log-level": Entry(_C + "settings", "log_level", "How much the node writes into its log"),
        "service": Entry(_C + "service", "service", "Let the node start with this computer"),
        "demo": Entry(_C + "demo", "demo", "A living mesh on this computer, to try it out"),
    },
}


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=("instar status", "instar pair", "instar send work 'What is on today?' --wait"),
)
@click.version_option(None, "--version", package_name="instar-tui", message="instar %(version)s")
def instar() -> None:
    """One AI agent, many machines. `instar-tui` opens the control centre."""


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=(
        "instar-tui",
        "instar-tui --daemon --listen 0.0.0.0:7707",
        "instar-tui --daemon --hub git@example.net:me/mesh.git",
        "instar-tui demo --machines 3",
    ),
)
@click.option("--daemon", is_flag=True, help="Run the node without a screen.")
@click.option("--listen", metavar="HOST:PORT", help="Where other machines reach this node.")
@click.option("--hub", metavar="URL", help="Where the lease lies: a git URL, or a path to a bare repository.")
@click.option("--nickname", metavar="NAME", help="What people call this machine.")
@click.option("--witness", is_flag=True, help="Keep the lease register for others; never run the agent.")
@click.option("--read-only", is_flag=True, help="Watch; change nothing.")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal.")
@click.version_option(None, "--version", package_name="instar-tui", message="instar-tui %(version)s")
@click.pass_context
def instar_tui(ctx: click.Context, /, **options: Any) -> int | None:
    """The control centre. It embeds a node, or attaches to the daemon that runs on the same home."""
    if ctx.invoked_subcommand is not None:
        return None
    from instar_tui.launch import launch

    return launch(ctx.ensure_object(Invocation).home, **options)


def run(program: click.Command, arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error is told in one place, here."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal of another encoding is no reason to fail
    invocation = Invocation()
    try:
        answer = program.main(arguments, prog_name=program.name, standalone_mode=False, obj=invocation)
        sys.stdout.flush()
        return int(answer or ExitCode.DONE)
    except (Exception, KeyboardInterrupt) as error:
        return outcome(error, as_json=invocation.json or "--json" in arguments)


def outcome(error: BaseException, *, as_json: bool = False) -> ExitCode:
    """Tell what ended the program, and return its exit code; raises what is no answer to a person."""
    match error:
        case InstarError():
            _tell(error, as_json)
            return exit_code_of(error)
        case click.ClickException():
            error.show()
            if as_json:
                _tell_json(InstarError("usage", error.format_message()))
            return ExitCode.USAGE
        case click.Abort() | KeyboardInterrupt():
            click.echo("stopped", err=True)
            return ExitCode.REFUSED
        case BrokenPipeError():  # the reader (such as `head`) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.REFUSED
    raise error


def _tell(error: InstarError, as_json: bool) -> None:
    from instar_tui.safe_text import shown

    click.echo(f"error: {shown(error.message)}", err=True)
    if error.hint:
        click.echo(f"hint: {shown(error.hint)}", err=True)
    if as_json:
        _tell_json(error)


def _tell_json(error: InstarError) -> None:
    import json

    click.echo(json.dumps({"error": error.to_json()}, ensure_ascii=False, indent=2))
