"""What travels through ``POST /api/pair``, outside and inside the sealed parts.

Two requests make a join: ``start`` (a commitment to the joiner's share) and ``finish`` (the share, the proof
of the code, the joiner's identity sealed). Where people compare the short string, ``verdict`` follows, asked
again until both have answered; so does one where the mesh has a hub that the joiner must be able to reach.
Everything is JSON; bytes are base64.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from instar_node.errors import InstarError
from instar_node.identity.chain import MAX_URLS, RegistryRecord, Url
from instar_node.identity.keys import PublicIdentity

PAIRING_VERSION = 1
MAX_BODY = 64 * 1024
"""Largest request a stranger may send."""

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Share = Annotated[bytes, Meta(min_length=33, max_length=33)]
SessionId = Annotated[str, Meta(min_length=32, max_length=32)]
MachineId = Annotated[str, Meta(pattern=r"^m_[0-9a-f]{32}\Z")]


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="start"):
    """Joiner: I hold a share with this hash; the exchange is for this machine."""

    version: int
    machine_id: MachineId
    commitment: Hash


class Started(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Host: the exchange is open; this is my share and my machine."""

    session: SessionId
    machine_id: MachineId
    share: Share


class Finish(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="finish"):
    """Joiner: the committed share, the proof that I know the code, and who I am (a sealed ``JoinerInfo``)."""

    session: SessionId
    share: Share
    confirm: Hash
    sealed: Annotated[bytes, Meta(max_length=48 * 1024)]


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step", tag="verdict"):
    """Joiner: the person here says yes or no to the short string; ``proof`` shows that it is this joiner."""

    session: SessionId
    accept: bool
    proof: Hash


class Finished(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Host: the proof that it knows the code too, and the sealed ``PairingGrant``.

    ``sealed`` is empty (status 202) while people compare the short string, or while the joiner looks at the
    sealed ``Terms``; a verdict of the joiner answers both.
    """

    confirm: Hash
    sealed: bytes = b""
    terms: bytes = b""


class HubTerms(NamedTuple):
    """The present hub: kind, URL, and what it calls itself."""

    kind: str
    url: str
    id: str


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a joiner has to be able to use before it is admitted: an admission cannot be undone."""

    hub_kind: str
    hub_url: str
    hub_id: str
    """What the hub at that address calls itself; empty when the host does not know."""
    compare: bool
    """Whether people compare the short string as well."""


Request = Start | Finish | Verdict


class JoinerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants in. Read only after the code was proved."""

    identity: PublicIdentity
    nickname: Annotated[str, Meta(min_length=1, max_length=40)]
    urls: Annotated[tuple[Url, ...], Meta(max_length=MAX_URLS)] = ()
    witness: bool = False
    version: Annotated[str, Meta(max_length=40)] = ""
    """Version of its program."""
    protocol: tuple[int, int] = (1, 1)
    """Lowest and highest node protocol it speaks."""
    sas: bool = False
    """A person at the joiner wants to compare the short string before anything is admitted."""


class PairingGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a machine gets when it is admitted: all it needs to take part and to distrust the git host."""

    identity: PublicIdentity
    """The host's own."""
    nickname: str
    """The host's."""
    mesh_id: str
    records: tuple[RegistryRecord, ...]
    hub_kind: str
    hub_url: str
    lease: bytes
    """The newest lease record as the lease store encodes it; opaque here."""


class Refusal(msgspec.Struct, frozen=True):
    """The error object of a reply that is not a success."""

    error: dict[str, Any]


def decode_request(body: bytes) -> Request:
    """Decode what a stranger sent. Raises ``InstarError("malformed")`` (422), also for another version."""
    if len(body) > MAX_BODY:
        raise malformed("the request is too large")
    try:
        request: Request = msgspec.json.decode(body, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(str(error)) from error
    if isinstance(request, Start) and request.version != PAIRING_VERSION:
        raise InstarError(
            "pairing-version",
            f"this machine pairs by version {PAIRING_VERSION}, the other by {request.version}",
            "update instar-tui on both machines",
            status=422,
        )
    return request


def decode_joiner(payload: bytes) -> JoinerInfo:
    """Decode and check what the joiner sealed. Raises ``malformed`` or ``bad-identity`` (422)."""
    try:
        joiner = msgspec.json.decode(payload, type=JoinerInfo)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(str(error)) from error
    joiner.identity.check()
    return joiner


def malformed(why: str) -> InstarError:
    """422: the request cannot be understood."""
    return InstarError("malformed", f"malformed pairing request: {why}", status=422)
