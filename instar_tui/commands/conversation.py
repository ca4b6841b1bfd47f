"""``send``, ``log``, ``outbox``: talking to the agent."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing

import click
import msgspec

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.coordination.record import epoch_text
from instar_node.errors import InstarError, bad_input
from instar_tui.commands.base import Invocation, command, group, pass_invocation
from instar_tui.commands.output import Output, note
from instar_tui.widgets.text import clock, shown_lines

PAGE = 1_000
_OVER = {
    "abandoned": ("every try of the agent failed", "instar log {topic}"),
    "rejected": ("the message was rejected", "instar log {topic}"),
    "undecided": ("whether the reply was delivered is not known", "instar outbox"),
}
"""States in which no reply will come by itself: what happened, and the command that shows more."""
FOR_A_PERSON = 'waits for a person to answer it (instar-tui: 6, then a), for agent.kind is "manual"'


class Reply(msgspec.Struct):
    """Answer of ``send --wait --json``: the message as it was taken, and the agent's rows."""

    sent: t.SendResult
    replies: list[t.Message]


@command(
    "send",
    "instar send work 'What is on today?'",
    "instar send work 'Summarise this' --wait --timeout 60",
    "git diff | instar send review - --wait",
)
@click.argument("topic")
@click.argument("text")
@click.option("--key", help="Names the message: sent again with the same key it is answered once.")
@click.option("--sender", help="Who says it.")
@click.option("--wait", is_flag=True, help="Wait for the reply and print it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
)
@pass_invocation
def send(
    invocation: Invocation,
    topic: str,
    text: str,
    key: str | None,
    sender: str | None,
    wait: bool,
    timeout: float,
) -> None:
    """Send TEXT to TOPIC (`-` reads stdin). Done as soon as the mesh has it safely; --wait for the reply."""
    api, out = invocation.api, invocation.out
    content = _standard_input() if text == "-" else text
    sent = api.send(t.SendRequest(topic=topic, text=content, key=key, sender=sender))
    if not wait:
        if invocation.json:
            return out.json(sent)
        again = "already taken" if sent.duplicate else "taken"
        return out.line(f"{again} by {sent.handled_by} as {sent.key} (number {sent.seq} of {sent.topic})")
    replies = _await_replies(api, sent, timeout)
    if invocation.json:
        return out.json(Reply(sent, replies))
    for reply in replies:
        for line in shown_lines(reply.text):
            out.line(line)
    return None


def _standard_input() -> str:
    """All of it. Raises ``bad-input`` when it is not text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise bad_input("text", "standard input is not UTF-8", "send text") from error


def _await_replies(api: BlockingNodeApi, sent: t.SendResult, timeout: float) -> list[t.Message]:
    """The reply rows of a message; looks at every event, and twice a second in case one was missed."""
    deadline = time.monotonic() + timeout
    after = sent.seq
    told = False
    with closing(api.events(tick=min(0.5, timeout))) as events:
        while time.monotonic() < deadline:
            replies, after = _new_replies(api, sent, after)
            if replies:
                return replies
            if _state_now(api, sent) == "waiting" and not told:
                told = True
                note(FOR_A_PERSON)
            next(events)
    raise InstarError(
        "no-reply-yet",
        f"no reply to {sent.key} within {timeout:g} s; the message is safe and will be answered",
        f"instar log {sent.topic} --follow",
    )


def _new_replies(api: BlockingNodeApi, sent: t.SendResult, after: int) -> tuple[list[t.Message], int]:
    """Replies to the message among the rows after a number, and the last number looked at."""
    replies: list[t.Message] = []
    for row in _rows(api, sent.topic, after):
        after = row.seq
        if row.reply_to == sent.key and row.role == "agent":
            replies.append(row)
    return replies, after


def _state_now(api: BlockingNodeApi, sent: t.SendResult) -> str | None:
    """What has become of the message. Raises ``InstarError`` where no reply will come by itself."""
    mine = api.messages(sent.topic, sent.seq - 1, 1).messages
    state = mine[0].state if mine and mine[0].key == sent.key else None
    if state in _OVER:
        what, look = _OVER[state]
        raise InstarError(state, f"there is no reply to {sent.key}: {what}", look.format(topic=sent.topic))
    return state


@command("log", "instar log work", "instar log work --tail 20", "instar log work --follow")
@click.argument("topic")
@click.option("--follow", is_flag=True, help="Go on showing what comes.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N messages.")
@pass_invocation
def log(invocation: Invocation, topic: str, follow: bool, tail: int | None) -> None:
    """Show the conversation TOPIC. With --follow and --json: one message a line."""
    api, out = invocation.api, invocation.out
    rows = list(_rows(api, topic, 0))
    last = rows[-1].seq if rows else 0
    shown_rows = rows if tail is None else rows[len(rows) - min(tail, len(rows)) :]
    if invocation.json and not follow:
        return out.json(t.Messages(topic, shown_rows))
    for row in shown_rows:
        _write(out, row)
    if not follow:
        return None if rows else note(f"nothing has been said in {topic} yet")
    for _ in api.events(tick=1.0):
        for row in _rows(api, topic, last):
            last = row.seq
            _write(out, row)
        sys.stdout.flush()
    return None


def _rows(api: BlockingNodeApi, topic: str, after: int) -> Iterator[t.Message]:
    """All messages after a number, page by page."""
    while page := api.messages(topic, after, PAGE).messages:
        yield from page
        after = page[-1].seq
        if len(page) < PAGE:
            return


def _write(out: Output, row: t.Message) -> None:
    if out.as_json:
        return out.json_line(row)
    where = f"{row.machine}·{row.epoch}"
    state = f"  [{row.state}]" if row.state in {"processing", "waiting", "received", *_OVER} else ""
    first, *more = shown_lines(row.text)
    out.line(f"{clock(row.at)}  {where:<14}  {row.role:<5}  {first}{state}")
    for line in more:
        out.line(f"{'':<33}{line}")
    return None


@group("outbox", "instar outbox", "instar outbox resolve 42 send")
@pass_invocation
@click.pass_context
def outbox(ctx: click.Context, invocation: Invocation) -> None:
    """List replies that are not delivered yet."""
    if ctx.invoked_subcommand is not None:
        return
    answer = invocation.api.outbox()
    out = invocation.out
    if invocation.json:
        out.json(answer)
        return
    rows = [
        (row.id, row.topic, row.state, epoch_text(row.epoch), row.reason, row.text[:60])
        for row in answer.items
    ]
    out.table(("id", "topic", "state", "epoch", "why", "text"), rows, empty="every reply is delivered")


@outbox.command("resolve", examples=("instar outbox resolve 42 send", "instar outbox resolve 42 drop"))
@click.argument("item", metavar="ID")
@click.argument("action", type=click.Choice(["send", "drop"]))
@pass_invocation
def resolve(invocation: Invocation, item: str, action: str) -> None:
    """Decide an undecided reply: `send` it (again), or `drop` it."""
    body = t.OutboxAction("send" if action == "send" else "drop")
    answer = invocation.api.outbox_resolve(item, body)
    if invocation.json:
        return invocation.out.json(answer)
    return invocation.out.line(f"{item}: {'is sent' if action == 'send' else 'is dropped'}")
