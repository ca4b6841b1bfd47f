"""``pair`` and ``join``: bringing a machine into the mesh."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from time import sleep
from typing import TYPE_CHECKING

import click

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.errors import InstarError
from instar_tui.commands.base import Invocation, command, pass_invocation
from instar_tui.commands.output import Output, note
from instar_tui.commands.words import sas_line
from instar_tui.widgets.text import dots, shown

if TYPE_CHECKING:
    from instar_node.pairing.sas import ShortString

LOOK_EVERY_S = 0.25
_ENDED = {
    "expired": "the code has expired",
    "locked": "the code is void: every attempt was a wrong guess",
    "consumed": "the code was used",
    "cancelled": "the pairing was cancelled",
    "none": "the pairing is over",
}


@command("pair", "instar pair", "instar pair --sas", "instar pair --no-wait --json")
@click.option("--sas", is_flag=True, help="Ask on both machines whether the same digits are shown.")
@click.option("--no-wait", is_flag=True, help="Print the code and return; it stays open.")
@pass_invocation
def pair(invocation: Invocation, sas: bool, no_wait: bool) -> None:
    """Mint a code for one other machine and wait for it. With --json: one document a line."""
    api, out = invocation.api, invocation.out
    view = api.pair(t.PairRequest(sas=sas))
    if no_wait and invocation.json:
        return out.json(view)
    _announce(out, view)
    if no_wait:
        return None
    try:
        joined = _Wait(api, out, view).until_joined()
    except KeyboardInterrupt:
        api.pair_cancel()
        note("cancelled: the code is void")
        raise
    return out.json_line(joined) if out.as_json else _welcome(out, joined)


def _announce(out: Output, view: t.PairView) -> None:
    if out.as_json:
        return out.json_line(view)
    out.fields(
        (
            ("code", view.code),
            ("on the other machine", view.join_command),
            ("valid for", f"{view.expires_in_ms // 1000} s, {view.attempts_left} attempts"),
        )
    )
    if view.warning:
        note(f"warning: {view.warning}")
    return None


def _welcome(out: Output, view: t.PairView) -> None:
    joiner = view.joiner or {}
    out.fields(
        (
            ("joined", str(joiner.get("nickname", "?"))),
            ("machine", str(joiner.get("machine_id", "?"))),
            ("fingerprint", str(joiner.get("fingerprint", "?"))),
            ("same on both", sas_line(view.sas) if view.sas else None),
        )
    )


class _Wait:
    """Watches one code until it comes to something."""

    def __init__(self, api: BlockingNodeApi, out: Output, view: t.PairView) -> None:
        self._api = api
        self._out = out
        self._code = view.code
        self._attempts = view.attempts_left

    def until_joined(self) -> t.PairView:
        """The view of the joined machine. Raises why there is none."""
        while True:
            view = self._api.pair_view()
            self._tell_guesses(view)
            if view.state == "joined" or (view.state == "consumed" and view.joiner is not None):
                self._countdown("")
                return view
            if view.state == "confirming":
                self._confirm(view)
            elif view.state != "open":
                raise InstarError(f"pairing-{view.state}", _ENDED[view.state], "instar pair")
            elif view.code != self._code:
                raise InstarError("pairing-replaced", "another code was minted meanwhile", "instar pair")
            left = max(0, view.expires_in_ms // 1000)
            self._countdown(
                f"{left // 60}:{left % 60:02d} left  {dots(view.attempts_left, view.attempts_max)}"
            )
            sleep(LOOK_EVERY_S)

    def _tell_guesses(self, view: t.PairView) -> None:
        if view.attempts_left < self._attempts and view.state in ("open", "locked"):
            self._countdown("")
            why = f" ({view.last_refusal})" if view.last_refusal else ""
            note(f"wrong guess{why}: {view.attempts_left} of {view.attempts_max} attempts left")
            if self._out.as_json:
                self._out.json_line(view)
        self._attempts = view.attempts_left

    def _confirm(self, view: t.PairView) -> None:
        self._countdown("")
        if view.sas is not None:
            note(f"this machine shows  {sas_line(view.sas)}")
        name = shown(str((view.joiner or {}).get("nickname", "the other machine")))
        accept = click.confirm(f"Does {name} show the same?", err=True)
        self._api.pair_confirm(t.PairConfirm(accept=accept))
        if not accept:
            raise InstarError("pairing-refused", "the machine was not admitted", "instar pair")

    def _countdown(self, text: str) -> None:
        """One line that is written over, on terminals only."""
        if self._out.rich and not self._out.as_json:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)


@command(
    "join",
    "instar join http://192.168.1.7:7707 --code MAPLE-RIVER-4821 --nickname mini",
    "instar join http://192.168.1.7:7707 --code MAPLE-RIVER-4821 --nickname nas --witness",
)
@click.argument("url")
@click.option("--code", required=True, help="The code that `instar pair` shows on the other machine.")
@click.option("--nickname", metavar="NAME", help="What people call this machine.")
@click.option("--sas", is_flag=True, help="Ask on both machines whether the same digits are shown.")
@click.option("--witness", is_flag=True, help="Only keep the lease register for the others.")
@pass_invocation
def join(invocation: Invocation, url: str, code: str, nickname: str | None, sas: bool, witness: bool) -> None:
    """Join the mesh of the machine at URL. Needs no running node."""
    body = t.JoinRequest(url=url, code=code, nickname=nickname, sas=sas, witness=witness)
    result = _join(invocation, body)
    if invocation.json:
        return invocation.out.json(result)
    return invocation.out.fields(
        (
            ("joined", str(result.peer.get("nickname", "?"))),
            ("its fingerprint", str(result.peer.get("fingerprint", "?"))),
            ("same on both", sas_line(result.sas)),
            ("mesh", result.mesh_id),
            ("this machine", result.machine_id),
            ("next", result.next),
        )
    )


def _join(invocation: Invocation, body: t.JoinRequest) -> t.JoinResult:
    """Through the node that runs here, if one does; else directly on the files of the home."""
    try:
        return _join_through_node(invocation.api, body)
    except InstarError as error:
        if error.code != "node-not-running":
            raise
    import asyncio

    from instar_node.joining import join_home

    joining = join_home(
        invocation.home,
        body.url,
        body.code,
        body.nickname,
        sas=body.sas,
        witness=body.witness,
        confirm=_same_on_both,
    )
    return asyncio.run(joining)


def _join_through_node(api: BlockingNodeApi, body: t.JoinRequest) -> t.JoinResult:
    """The node joins; meanwhile the person is asked about the short string, if either side wants that."""
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(api.join, body)
        asked = False
        while not wait((joining,), LOOK_EVERY_S).done:
            sas = _open_question(api)
            if sas is not None and not asked:
                asked = True
                api.pair_confirm(t.PairConfirm(accept=_asked(sas)))
        return joining.result()


def _open_question(api: BlockingNodeApi) -> t.Sas | None:
    """The short string that waits to be confirmed here, if one does."""
    try:
        view = api.pair_view()
    except InstarError as error:
        if error.code == "node-not-running":  # it has joined, and starts anew
            return None
        raise
    return view.sas if view.state == "confirming" else None


def _asked(sas: t.Sas) -> bool:
    note(f"this machine shows  {sas_line(sas)}")
    return click.confirm("Does the other machine show the same?", err=True)


async def _same_on_both(shown_here: ShortString) -> bool:
    """Nothing else happens in this process meanwhile: the question may block its event loop."""
    return _asked(t.Sas(shown_here.digits, list(shown_here.emoji), list(shown_here.names)))
