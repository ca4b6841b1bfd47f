"""Everything the node API takes and gives, as typed structs. Field names are the contract of scripts.

Times are ISO-8601 UTC strings; durations are integer milliseconds (``_ms``). ``None`` means "not known" or
"does not apply".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

TOPIC_PATTERN = r"^[A-Za-z0-9._:-]{1,64}\Z"
Topic = Annotated[str, Meta(min_length=1, max_length=64, pattern=TOPIC_PATTERN)]
Key = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
"""A message's own name; no control characters, for it goes into headers, environments and log lines."""
Role = Literal["awake", "standby", "witness", "removed"]


class Model(msgspec.Struct):
    """Base of all API structs."""


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """Base of all request bodies; an unknown field is a 400, not a silent surprise."""


# -- who and how well -----------------------------------------------------------------------------------


class Alert(Model):
    """Something a person should know; ``hint`` says what to do."""

    code: str
    message: str
    hint: str = ""


class Health(Model):
    status: Literal["ok", "degraded", "alarm"]
    version: str
    machine_id: str
    role: Role
    epoch: int
    split_brain: dict[str, Any] | None
    sync: dict[str, Any]
    gates: dict[str, Any]
    alerts: list[Alert]
    counters: dict[str, int]


class WhoAmI(Model):
    machine_id: str
    nickname: str
    fingerprint: str
    """Five words for people to compare."""
    signing_public_key: str
    """Raw Ed25519 public key, base64."""
    encryption_public_key: str
    """Raw X25519 public key, base64."""
    version: str
    role: Role | None
    mesh_id: str | None
    mesh_name: str | None
    """Two words derived from ``mesh_id``, to tell meshes apart at a glance."""
    urls: list[str]
    hub: str | None


class Lag(Model):
    """How far a copy is behind."""

    entries: int
    bytes: int
    ms: int


class Machine(Model):
    machine_id: str
    nickname: str
    fingerprint: str
    role: Role
    status: Literal["ok", "catching-up", "benched", "offline", "held-back", "joining", "removed"]
    status_text: str
    """The same for people, such as ``in sync`` or ``benched: missed 3 rounds``."""
    online: bool
    last_seen: str | None
    last_seen_ms: int | None
    """Milliseconds since this machine was last heard; 0 for the machine itself."""
    rtt_ms: float | None
    version: str
    protocol: tuple[int, int] | None
    electorate: bool
    lag: Lag | None
    topics: int
    running: int
    urls: list[str]
    is_self: bool


class Machines(Model):
    machines: list[Machine]


# -- the lease ------------------------------------------------------------------------------------------


class EpochRow(Model):
    epoch: int
    epoch_text: str
    """``7``, or ``1·3`` for the third epoch of generation 1."""
    holder: str
    holder_nickname: str
    reason: str
    at: str
    for_ms: int | None
    took_ms: int | None = None


class Evidence(Model):
    """What one other machine contributes to the holder's validity (holder's view) or to ours."""

    machine_id: str
    nickname: str
    in_electorate: bool
    benched: bool
    promised_ms_ago: int | None
    first_saw_ms_ago: int | None
    may_contend_in_ms: int | None


class IfLost(Model):
    """What would happen if the holder died now."""

    next: str | None
    next_nickname: str | None
    after_ms: int | None
    why_not: str | None
    hint: str = ""


class LeaseView(Model):
    holder: str | None
    holder_nickname: str | None
    epoch: int
    epoch_text: str
    is_self: bool
    valid_for_ms: int
    """Time left in which the holder may act. Where nothing expires (embedded hub) it stays at ``ttl_ms``."""
    expires: bool
    """False while the validity needs no renewal (embedded hub, or alone)."""
    ttl_ms: int
    round_ms: int
    electorate: list[str]
    benched: list[str]
    medium: Literal["promise", "hub"]
    state: Literal["held", "observed", "expired", "released", "closed", "split-brain", "none"]
    since: str | None
    since_ms: int | None
    renewed_ms_ago: int | None
    round_took_ms: float | None
    hub: HubView
    history: list[EpochRow]
    evidence: list[Evidence]
    if_lost: IfLost
    counters: dict[str, int]


class HubView(Model):
    kind: Literal["embedded", "path", "remote", "witness", "etcd"]
    url: str
    reachable: bool
    latency_ms: float | None
    last_write_ms_ago: int | None
    error: str | None = None


# -- pairing --------------------------------------------------------------------------------------------


class PairRequest(Body):
    sas: bool = False


class PairConfirm(Body):
    accept: bool


class Sas(Model):
    """The short authentication string: the same six digits and four emoji on both machines."""

    digits: str
    emoji: list[str]
    names: list[str]


class PairView(Model):
    state: Literal["none", "open", "confirming", "joined", "expired", "locked", "consumed", "cancelled"]
    code: str | None
    """Only for the local token; never in a reply to a peer."""
    url: str | None
    join_command: str | None
    expires_in_ms: int
    lifetime_ms: int
    attempts_left: int
    attempts_max: int
    sas: Sas | None = None
    joiner: dict[str, Any] | None = None
    """``machine_id, nickname, fingerprint`` of who joined."""
    last_refusal: str | None = None
    warning: str | None = None
    """Such as: this address is only reachable from this host."""


class JoinRequest(Body):
    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    nickname: Annotated[str, Meta(max_length=40)] | None = None
    sas: bool = False
    witness: bool = False
    """Only keep the lease register for the others."""


class JoinResult(Model):
    machine_id: str
    mesh_id: str
    peer: dict[str, Any]
    """``machine_id, nickname, fingerprint, url`` of the machine that admitted us."""
    sas: Sas
    next: str
    """The command to type next."""


# -- roles ----------------------------------------------------------------------------------------------


class WakeupRequest(Body):
    force: bool = False
    vouch: list[str] = []
    """With ``force``: the unreachable machines the person vouches are not acting."""


class HealRequest(Body):
    confirm: bool = False
    """Go on from this machine's line; without it the answer tells what was seen and what would follow."""
    vouch: list[str] = []
    """The unreachable machines the person vouches are not acting."""


class HandoffRequest(Body):
    to: Annotated[str, Meta(min_length=1, max_length=64)]


class Step(Model):
    step: str
    at_ms: float
    """Milliseconds since the operation began."""
    note: str = ""


class HandoffResult(Model):
    outcome: Literal["awake", "already-awake", "aborted", "failed", "running", "none"]
    holder: str | None
    holder_nickname: str | None
    epoch: int
    took_ms: float
    steps: list[Step]
    reason: str = ""
    kind: str = ""
    """``handoff``, ``takeover``, ``force`` or ``heal``."""
    source: str | None = None
    target: str | None = None


class HubRequest(Body):
    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    """As ``hub.url`` in the settings; ``embedded`` for the awake machine's own disk."""
    force: bool = False
    """The present hub is dead: this machine begins a new generation in the other one."""
    vouch: list[str] = []
    """With ``force``: the unreachable machines the person vouches are not acting."""


class HubMoved(Model):
    """Where the lease lies after a move; ``unreachable`` machines are benched until they can use the hub."""

    outcome: Literal["moved", "already-there"]
    kind: Literal["embedded", "path", "remote", "witness", "etcd"]
    url: str
    epoch: int
    took_ms: int
    unreachable: list[HubTrouble]


class HubTrouble(Model):
    """A machine that cannot use the new hub, or was not there to say."""

    machine_id: str
    nickname: str
    why: str


# -- conversation ---------------------------------------------------------------------------------------


class SendRequest(Body):
    topic: Topic
    text: Annotated[str, Meta(min_length=1, max_length=200_000)]
    key: Key | None = None
    sender: Annotated[str, Meta(max_length=200)] | None = None


class SendResult(Model):
    key: str
    state: str
    seq: int
    topic: str
    handled_by: str
    duplicate: bool = False


class Message(Model):
    seq: int
    role: Literal["user", "agent"]
    text: str
    at: str
    key: str
    reply_to: str | None
    epoch: int
    machine_id: str
    machine: str
    """Nickname of ``machine_id``."""
    state: str | None = None
    """Delivery state of a user message: ``received``, ``processing``, ``waiting``, ``reserved``,
    ``committed``, ``cursor_advanced``, ``abandoned``, ``rejected``, ``undecided``."""


class Messages(Model):
    topic: str
    messages: list[Message]


class TopicRow(Model):
    topic: str
    owner: str | None
    owner_nickname: str | None
    reason: Literal["pinned", "placed", "unowned"]
    pinned_to: str | None
    pending_reason: str | None
    last_at: str | None
    last_at_ms: int | None
    last_text: str
    last_role: str | None
    unread: int
    queued: int
    running: bool
    moving_to: str | None = None


class Topics(Model):
    topics: list[TopicRow]


class ReplyRequest(Body):
    reply_to: Annotated[str, Meta(min_length=1, max_length=200)]
    text: Annotated[str, Meta(min_length=1, max_length=200_000)]


class OutboxItem(Model):
    id: str
    reply_id: str
    topic: str
    state: str
    epoch: int
    reason: str
    text: str


class Outbox(Model):
    items: list[OutboxItem]


class OutboxAction(Body):
    action: Literal["send", "drop"]


class TailPeer(Model):
    machine_id: str
    nickname: str
    topic: str | None
    behind: Lag
    acked_seq: int
    head_seq: int
    last_ack_ms: int | None


class LiveTail(Model):
    role: Literal["source", "standby"]
    source: str | None
    peers: list[TailPeer]


# -- pool -----------------------------------------------------------------------------------------------


class PoolRouter(Model):
    holder: str | None
    epoch: int


class PoolTopics(Model):
    count: int
    pinned: int
    placed: int
    unowned: int


class PoolView(Model):
    enabled: bool
    router: PoolRouter
    machines: list[Machine]
    topics: PoolTopics


class PlacementView(Model):
    topic: str
    owner: str | None
    owner_nickname: str | None
    reason: Literal["pinned", "placed", "unowned"]
    pinned_to: str | None
    lease_holder: str | None
    lease_holder_nickname: str | None
    pin_state: Literal["actuated", "pending", "none"]
    is_this_machine: bool
    answered_by: Literal["local", "holder"]
    pending_reason: str | None = None
    ownership_epoch: tuple[int, int] | None = None


class TransferRequest(Body):
    topic: Topic
    to: Annotated[str, Meta(max_length=64)] = ""
    confirm: str | None = None
    undo: bool = False


class TransferResult(Model):
    outcome: Literal["moved", "queued", "noop"]
    topic: str
    owner: str | None
    owner_nickname: str | None
    source: str | None
    ownership_epoch: tuple[int, int] | None
    took_ms: float
    steps: list[Step] = []
    pending_reason: str | None = None


class UnpinRequest(Body):
    topic: Topic


class RenameRequest(Body):
    nickname: Annotated[str, Meta(min_length=1, max_length=40)]


# -- the shared state -----------------------------------------------------------------------------------


SyncState = Literal["empty", "in-sync", "queued", "unpushed", "behind"]


class QueuedChange(Model):
    """An edit of this machine that the awake one has not surely taken in."""

    path: str
    kind: Literal["added", "changed", "deleted"]
    at: str
    number: int
    """Edits of one number were found at one look, and are applied together."""


class RefusedCommit(Model):
    """Commits that were not believed; ``code`` names the rule that ``commit`` broke."""

    commit: str
    code: str
    why: str
    source: str
    """``the hub``, or a nickname."""
    at: str


class SyncConflict(Model):
    """Two machines changed one file; ``kept_as`` has the version of ``machine``, ``None`` for a deletion
    that did not happen."""

    path: str
    kept_as: str | None
    machine_id: str
    machine: str
    at: str


class SyncLeftOut(Model):
    path: str
    why: str


class SyncView(Model):
    """The shared state as this machine has it."""

    state: SyncState
    head: str | None
    epoch: int | None
    signed_by: str | None
    files: int
    writes: bool
    """Whether this machine writes it now."""
    last_push: str | None
    last_pull: str | None
    unpushed: bool
    hub_error: str | None
    trouble: str | None
    queued: list[QueuedChange]
    refused: list[RefusedCommit]
    conflicts: list[SyncConflict]
    left_out: list[SyncLeftOut]
    """Files of this machine that are not shared, with the reason."""
    unwritten: list[SyncLeftOut]
    """Files of the state that could not be written here."""
    folder: str


# -- secrets --------------------------------------------------------------------------------------------


class SecretValue(Body):
    value: str


class SecretRow(Model):
    """One secret, without its value."""

    name: str
    version: int
    set_at: str
    readers: list[str]
    """Nicknames of the machines that can open it."""
    exposed_to: list[str]
    """Nicknames of former machines that could read this value: it should be changed."""
    readable_here: bool


class Secrets(Model):
    names: list[str]
    secrets: list[SecretRow]


class Secret(Model):
    """The one answer that holds a value; only for the local token."""

    name: str
    value: str


# -- verification and gates -------------------------------------------------------------------------------


class VerifyRequest(Body):
    machine: Annotated[str, Meta(max_length=64)] = ""
    """Nickname or id; empty for every machine that can be reached."""
    rehearse: bool = False
    """Rehearse the handoff up to the acknowledgement, so that the awake role does not move."""


class DrillStep(Model):
    """One component tried out between two machines."""

    component: str
    passed: bool
    finding: str
    """What was found: evidence when it passed, what is wrong when it did not."""
    took_ms: float


class Drill(Model):
    """All components tried out with one machine, in order, signed by the machine that ran it."""

    peer: str
    peer_nickname: str
    signed_by: str
    signed_by_nickname: str
    passed: bool
    live: bool
    """Whether the awake role really went there and back."""
    failed: str | None
    """The first component that failed, if any."""
    finding: str
    """What failed, or why the drill did not come to its end; empty when it passed."""
    at: str
    epoch: int
    took_ms: float
    versions: dict[str, str]
    """Machine id -> version that ran."""
    steps: list[DrillStep]


class VerifyResult(Model):
    passed: bool
    drills: list[Drill]


class E2EResult(Model):
    """The newest result of one component between two machines."""

    component: str
    peer: str
    peer_nickname: str
    passed: bool
    at: str
    versions: dict[str, str]
    signed_by: str
    signed_by_nickname: str
    verified: bool
    """Whether the signature holds; a result without a good one counts for nothing."""
    finding: str
    took_ms: float
    live: bool
    epoch: int


class E2EResults(Model):
    results: list[E2EResult]


GateState = Literal["open", "shut", "unverified", "overridden"]


class GatePeer(Model):
    """A gate towards one machine."""

    machine_id: str
    nickname: str
    state: GateState
    why: str
    at: str | None


class GateView(Model):
    """One component: whether it may be used, and why. ``state`` is the worst of its peers."""

    gate: str
    state: GateState
    why: str
    shows: str
    """What the drill does to show that it works."""
    guards: list[str]
    """What is refused while it is shut."""
    override: Literal["open", "shut"] | None
    peers: list[GatePeer]


class Flags(Model):
    gates: list[GateView]


class FlagChange(Body):
    gate: Annotated[str, Meta(min_length=1, max_length=40)]
    state: Literal["open", "shut", "auto"]
    """``auto`` lets the drills decide again."""


# -- versions ---------------------------------------------------------------------------------------------


class MachineVersion(Model):
    machine_id: str
    nickname: str
    is_self: bool
    role: Role
    online: bool
    version: str
    """Running there, or last heard of; empty when it was never heard."""
    protocol: tuple[int, int] | None
    installed: str | None
    """What its next start would run, where that is known."""
    held_back: str | None
    """Why nothing is handed to it, or taken over by it; ``None`` when it works with the awake machine."""


class RestartView(Model):
    """A restart into another version on this machine."""

    expected: str
    previous: str
    state: Literal["pending", "done", "failed"]
    attempts: int
    """Starts that came up with another version than the expected one."""
    escalated: bool
    at: str


class UpdateStep(Model):
    machine_id: str
    nickname: str
    step: str
    at_ms: float
    note: str = ""


class Updates(Model):
    version: str
    protocol: tuple[int, int]
    installed: str | None
    machines: list[MachineVersion]
    held_back: list[str]
    """Ids of the machines that are held back."""
    restart: RestartView | None
    """The last restart into another version on this machine."""
    running: bool
    """Whether an update of the mesh is under way, as far as this machine knows."""
    steps: list[UpdateStep]
    """Of the update under way, or the last one that this machine drove."""


class UpdateRequest(Body):
    to: Annotated[str, Meta(max_length=64)] = ""
    """The version every machine is to run; empty for whatever is installed on each."""


class UpdateResult(Model):
    """``restarting``: the others are done, and the machine that drove the update restarts now."""

    outcome: Literal["updated", "nothing-to-do", "restarting", "failed"]
    reason: str
    steps: list[UpdateStep]


# -- the whole at a glance ------------------------------------------------------------------------------


class Status(Model):
    """One consistent picture of everything the header and the overview show."""

    me: WhoAmI
    health: Health
    lease: LeaseView
    machines: list[Machine]
    topics: list[TopicRow]
    livetail: LiveTail
    outbox: int
    handoff: HandoffResult
    at: str
    event: int
    """Number of the newest event contained in this picture."""


class Finding(Model):
    """One thing looked at; ``hint`` says how to mend it."""

    check: str
    state: Literal["ok", "warning", "problem"]
    message: str
    hint: str = ""


class Doctor(Model):
    """``healthy`` while no finding is a problem; a warning is none."""

    healthy: bool
    findings: list[Finding]


class ConfigView(Model):
    """Every setting, defaults included; secrets in it are hidden."""

    path: str
    settings: dict[str, Any]


class ConfigChange(Body):
    key: Annotated[str, Meta(min_length=1, max_length=120)]
    """Such as ``lease.ttl_ms``."""
    value: Any


class ConfigChanged(Model):
    key: str
    value: Any
    at_once: bool
    """Whether it counts already; otherwise from the node's next start."""


class ErrorBody(Model):
    error: dict[str, Any]


class Ok(Model):
    ok: bool = True
    note: str | UnsetType = UNSET
