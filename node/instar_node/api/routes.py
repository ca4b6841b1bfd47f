"""The one table of HTTP routes: server, both clients and the OpenAPI document are made from it.

A route names the ``NodeApi`` method it maps to; its parameters carry the names of that method's arguments.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from instar_node.api import types as t
from instar_node.identity.secret_names import SecretName

R = TypeVar("R", bound=msgspec.Struct)

Name = Annotated[str, Meta(min_length=1, max_length=200)]
"""An id or nickname in a path."""
Sequence = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A number of a row or an event; no larger than the database can hold."""
Limit = Annotated[int, Meta(ge=1, le=1_000)]

MAX_BODY = 256 * 1024
"""Bytes a request body may have."""


class Param(NamedTuple):
    """A path or query parameter; ``type`` is what the text is converted to and checked against."""

    name: str
    type: Any
    in_path: bool = True
    default: Any = None
    required: bool = True


class Route(NamedTuple, Generic[R]):
    """One HTTP operation.

    ``refused``: outcomes of the reply that answer 409 although the reply is whole (a handoff that aborted).
    ``patience_s``: how long a client waits for the answer before it gives up.
    """

    verb: str
    path: str
    method: str
    reply: type[R]
    summary: str
    body: type[t.Body] | None = None
    params: tuple[Param, ...] = ()
    refused: frozenset[str] = frozenset()
    patience_s: float = 30.0

    def url(self, arguments: dict[str, Any]) -> str:
        """Path and query with the arguments filled in."""
        path = self.path
        query: dict[str, Any] = {}
        for param in self.params:
            if param.in_path:
                path = path.replace(f"{{{param.name}}}", quote(arguments[param.name], safe=""))
            elif param.name in arguments:
                query[param.name] = arguments[param.name]
        return f"{path}?{urlencode(query)}" if query else path

    def status_of(self, reply: R) -> int:
        """200, or 409 for a whole reply that tells of a refusal."""
        return 409 if getattr(reply, "outcome", None) in self.refused else 200


_TOPIC = Param("topic", t.Topic)
_MACHINE = Param("machine", Name)
_UNDONE = frozenset({"aborted", "failed"})

STATUS = Route("GET", "/status", "status", t.Status, "Everything the overview shows, as one picture")
HEALTH = Route(
    "GET", "/health", "health", t.Health, "Whether the node is well; without a token only `status`"
)
WHOAMI = Route("GET", "/whoami", "whoami", t.WhoAmI, "This machine's identity")
MACHINES = Route("GET", "/machines", "machines", t.Machines, "All machines of the mesh")
REMOVE_MACHINE = Route(
    "DELETE", "/machines/{machine}", "remove_machine", t.Ok, "Remove a machine for good", params=(_MACHINE,)
)
LEASE = Route(
    "GET", "/lease", "lease", t.LeaseView, "Who holds the lease, on whose evidence, and its history"
)
LEASE_HEAL = Route(
    "POST",
    "/lease/heal",
    "lease_heal",
    t.HandoffResult,
    "End a split brain: go on from this machine's line, in a new generation",
    t.HealRequest,
    refused=_UNDONE,
    patience_s=60,
)
DOCTOR = Route("GET", "/doctor", "doctor", t.Doctor, "What is wrong, and how to mend it")
CONFIG = Route("GET", "/config", "config", t.ConfigView, "The settings of this home")
SET_CONFIG = Route("PATCH", "/config", "set_config", t.ConfigChanged, "Change one setting", t.ConfigChange)
PAIR = Route("POST", "/pair", "pair", t.PairView, "Mint a pairing code", t.PairRequest)
PAIR_VIEW = Route("GET", "/pair", "pair_view", t.PairView, "The open pairing, if any")
PAIR_CANCEL = Route("DELETE", "/pair", "pair_cancel", t.PairView, "Void the open pairing code")
PAIR_CONFIRM = Route(
    "POST", "/pair/confirm", "pair_confirm", t.PairView, "Accept or refuse the joiner", t.PairConfirm
)
JOIN = Route("POST", "/join", "join", t.JoinResult, "Join another mesh", t.JoinRequest, patience_s=150)
WAKEUP = Route(
    "POST",
    "/wakeup",
    "wakeup",
    t.HandoffResult,
    "Make this machine the awake one",
    t.WakeupRequest,
    refused=_UNDONE,
    patience_s=300,
)
HANDOFF = Route(
    "POST",
    "/handoff",
    "handoff",
    t.HandoffResult,
    "Make another machine the awake one",
    t.HandoffRequest,
    refused=_UNDONE,
    patience_s=300,
)
HANDOFF_VIEW = Route("GET", "/handoff", "handoff_view", t.HandoffResult, "The handoff under way, or the last")
MOVE_HUB = Route(
    "POST", "/hub", "move_hub", t.HubMoved, "Move the lease to another hub", t.HubRequest, patience_s=180
)
LEAVE = Route("POST", "/leave", "leave", t.Ok, "Take this machine out of the mesh")
SEND = Route("POST", "/messages", "send", t.SendResult, "Send a message", t.SendRequest)
TOPICS = Route("GET", "/topics", "topics", t.Topics, "All conversations")
MESSAGES = Route(
    "GET",
    "/topics/{topic}/messages",
    "messages",
    t.Messages,
    "One conversation, oldest first",
    params=(
        _TOPIC,
        Param("after", Sequence, in_path=False, default=0, required=False),
        Param("limit", Limit, in_path=False, default=200, required=False),
    ),
)
REPLY = Route(
    "POST",
    "/topics/{topic}/reply",
    "reply",
    t.SendResult,
    "Answer a waiting message by hand",
    t.ReplyRequest,
    params=(_TOPIC,),
)
OUTBOX = Route("GET", "/outbox", "outbox", t.Outbox, "Replies on their way out")
OUTBOX_RESOLVE = Route(
    "POST",
    "/outbox/{item}",
    "outbox_resolve",
    t.Ok,
    "Decide an undecided reply",
    t.OutboxAction,
    params=(Param("item", Name),),
)
LIVETAIL = Route("GET", "/livetail", "livetail", t.LiveTail, "How far the copies lag")
POOL = Route("GET", "/pool", "pool", t.PoolView, "The pool of machines that run topics")
POOL_MACHINE = Route(
    "GET", "/pool/machines/{machine}", "pool_machine", t.Machine, "One machine", params=(_MACHINE,)
)
RENAME = Route(
    "PATCH",
    "/pool/machines/{machine}",
    "rename",
    t.Machine,
    "Give a machine another nickname",
    t.RenameRequest,
    params=(_MACHINE,),
)
PLACEMENT = Route(
    "GET",
    "/pool/placement",
    "placement",
    t.PlacementView,
    "Where a topic runs, and why",
    params=(Param("topic", t.Topic, in_path=False),),
)
TRANSFER = Route(
    "POST",
    "/pool/transfer",
    "transfer",
    t.TransferResult,
    "Move a topic to another machine",
    t.TransferRequest,
    patience_s=120,
)
UNPIN = Route("POST", "/pool/unpin", "unpin", t.PlacementView, "Let a topic run anywhere", t.UnpinRequest)
SYNC = Route("GET", "/sync", "sync", t.SyncView, "The shared state: pushes, queued edits, refused commits")
SYNC_SEEN = Route("POST", "/sync/seen", "sync_seen", t.SyncView, "Refusals and conflicts were looked at")
_SECRET = Param("name", SecretName)
SECRETS = Route("GET", "/secrets", "secrets", t.Secrets, "Names of the secrets, never their values")
SECRET = Route("GET", "/secrets/{name}", "secret", t.Secret, "The value of a secret", params=(_SECRET,))
SET_SECRET = Route(
    "PUT", "/secrets/{name}", "set_secret", t.Ok, "Keep a secret", t.SecretValue, params=(_SECRET,)
)
REMOVE_SECRET = Route(
    "DELETE", "/secrets/{name}", "remove_secret", t.Ok, "Remove a secret", params=(_SECRET,)
)
VERIFY = Route(
    "POST",
    "/verify",
    "verify",
    t.VerifyResult,
    "Run the live drill with other machines",
    t.VerifyRequest,
    patience_s=300,
)
E2E_RESULTS = Route(
    "GET", "/session-pool/e2e-results", "e2e_results", t.E2EResults, "What the drills have shown, signed"
)
FLAGS = Route("GET", "/flags", "flags", t.Flags, "Each gate, and why it is open or shut")
SET_FLAG = Route("PATCH", "/flags", "set_flag", t.Flags, "Open or shut a gate by hand", t.FlagChange)
UPDATES = Route("GET", "/updates", "updates", t.Updates, "Versions, who is held back and why")
UPDATE = Route(
    "POST",
    "/updates",
    "update",
    t.UpdateResult,
    "Bring every machine to the installed version, one after the other",
    t.UpdateRequest,
    refused=frozenset({"failed"}),
    patience_s=900,
)

ROUTES: tuple[Route[Any], ...] = (
    STATUS, HEALTH, WHOAMI, MACHINES, REMOVE_MACHINE, LEASE,
    PAIR, PAIR_VIEW, PAIR_CANCEL, PAIR_CONFIRM, JOIN,
    WAKEUP, LEASE_HEAL, HANDOFF, HANDOFF_VIEW, MOVE_HUB, LEAVE,
    SEND, TOPICS, MESSAGES, REPLY, OUTBOX, OUTBOX_RESOLVE, LIVETAIL,
    POOL, POOL_MACHINE, RENAME, PLACEMENT, TRANSFER, UNPIN,
    SYNC, SYNC_SEEN, SECRETS, SECRET, SET_SECRET, REMOVE_SECRET,
    VERIFY, E2E_RESULTS, FLAGS, SET_FLAG, UPDATES, UPDATE,
    DOCTOR, CONFIG, SET_CONFIG,
)  # fmt: skip
