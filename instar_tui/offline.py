"""What a home says about itself while no node runs on it: identity, and the machines of its registry."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from instar_node import __version__
from instar_node.api import types as t
from instar_node.coordination.hub import WITNESS, Hub, read_hub, without_password
from instar_node.identity.keys import fingerprint, mesh_name, read_public
from instar_node.identity.stored import stored_registry
from instar_node.storage.home import Home
from instar_node.wiring.mesh_file import read_mesh_file

if TYPE_CHECKING:
    from instar_node.contracts import Member
    from instar_node.identity.chain import Folded


def stored_whoami(home: Home) -> t.WhoAmI:
    """This machine's identity; the role is not known without a node. Raises ``no-identity``."""
    public = read_public(home.machine)
    registry = stored_registry(home.machine)
    recorded = read_mesh_file(home)
    me = registry.members.get(public.machine_id) if registry else None
    nickname, urls, hub = _as_configured(home) if me is None or recorded is None else ("", (), None)
    if me is not None:
        nickname, urls = me.nickname, me.urls
    if registry is not None and recorded is not None:
        hub = _hub_name(read_hub(recorded.hub, home), registry)
    return t.WhoAmI(
        machine_id=public.machine_id,
        nickname=nickname,
        fingerprint=public.fingerprint,
        signing_public_key=base64.b64encode(public.signing_public).decode(),
        encryption_public_key=base64.b64encode(public.encryption_public).decode(),
        version=__version__,
        role="removed" if me and me.removed else None,
        mesh_id=registry.mesh_id if registry else None,
        mesh_name=mesh_name(registry.mesh_id) if registry else None,
        urls=list(urls),
        hub=hub,
    )


def _as_configured(home: Home) -> tuple[str, tuple[str, ...], str | None]:
    """Nickname, URLs and hub of a machine of which no record tells them."""
    from instar_node.config import load_config  # takes time, and the records count first

    config = load_config(home.config)
    return config.node.nickname, config.node.urls, without_password(config.hub.url) or None


def _hub_name(hub: Hub, registry: Folded) -> str:
    """As people write it: without a password, a witness by its nickname."""
    witness = registry.members.get(hub.witness) if hub.kind == "witness" else None
    return WITNESS + witness.nickname if witness else hub.shown


def stored_machines(home: Home) -> t.Machines:
    """The machines as this home's registry has them, all offline. Raises ``no-identity``."""
    public = read_public(home.machine)
    registry = stored_registry(home.machine)
    members = registry.members.values() if registry else ()
    return t.Machines([_machine(member, member.machine_id == public.machine_id) for member in members])


def _machine(member: Member, is_self: bool) -> t.Machine:
    return t.Machine(
        machine_id=member.machine_id,
        nickname=member.nickname,
        fingerprint=fingerprint(member.signing_public),
        role="removed" if member.removed else "witness" if member.witness else "standby",
        status="removed" if member.removed else "offline",
        status_text="removed" if member.removed else "not known: no node runs here",
        online=False,
        last_seen=None,
        last_seen_ms=None,
        rtt_ms=None,
        version=__version__ if is_self else "",
        protocol=None,
        electorate=False,
        lag=None,
        topics=0,
        running=0,
        urls=list(member.urls),
        is_self=is_self,
    )
