"""Building the parts: constructors and callbacks, nothing is started here."""

from __future__ import annotations

from collections.abc import Callable

from instar_node.api.machine_view import build_of
from instar_node.api.parts import Base, DeliveryParts, NodeParts, PoolParts, TailParts
from instar_node.clock import Clock
from instar_node.config import Config
from instar_node.contracts import AgentRunner
from instar_node.coordination.hubs import Hubs
from instar_node.coordination.lease_service import LeaseService
from instar_node.coordination.record import PURPOSE, Verifier
from instar_node.coordination.witness import WitnessCells, WitnessLeaseStore, WitnessRegister
from instar_node.delivery.agents.discreet import DiscreetAgent
from instar_node.delivery.agents.factory import build_agent
from instar_node.delivery.agents.reaper import RunRecords
from instar_node.delivery.channels.factory import build_channels
from instar_node.delivery.checkpoint import LedgerCheckpoints
from instar_node.delivery.compaction import Compactor
from instar_node.delivery.conversation import Conversation
from instar_node.delivery.dispatcher import Delivery
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.outbox import FencedOutbox
from instar_node.delivery.replication import ReplyMarkerTransport
from instar_node.errors import InstarError
from instar_node.events import EventHub
from instar_node.identity.address_book import AddressBook
from instar_node.identity.keys import verify
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.registry_sync import RegistrySync
from instar_node.identity.vault_sync import VaultSync
from instar_node.known_secrets import KnownSecrets
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.http_transport import HttpLiveTailTransport
from instar_node.livetail.redaction import Redactor
from instar_node.livetail.source import LiveTailSource
from instar_node.mesh.mesh import TunnelMesh
from instar_node.pool.agreement import PlacementAgreement
from instar_node.pool.chat_commands import ChatCommands
from instar_node.pool.machine_pool import Barred, MachinePoolRegistry
from instar_node.pool.nicknames import NicknameCommand, RelocationNicknameSet
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.queued_moves import QueuedMoves
from instar_node.pool.run_host import RunHost
from instar_node.pool.session_router import SessionRouter
from instar_node.pool.tail_first import TailFirst
from instar_node.pool.transfers import Transfers
from instar_node.storage.database import SqliteDatabase
from instar_node.storage.home import Home
from instar_node.surprises import Surprises
from instar_node.sync.state_sync import StateSync
from instar_node.updates.compatibility import held_back
from instar_node.updates.heard_builds import HeardBuilds
from instar_node.verification.verification import Verification
from instar_node.wiring.drills import build_verification
from instar_node.wiring.foundation import Foundation
from instar_node.wiring.handoffs import build_handoffs
from instar_node.wiring.lease_proof import prove
from instar_node.wiring.mesh_change import LEASE_FILE
from instar_node.wiring.pins_copy import PinsCopy
from instar_node.wiring.placement_log import LedgerPlacements, PlacementSeal, WorkInTopics
from instar_node.wiring.state_hub import StateHubs
from instar_node.wiring.state_lease import LeaseOfState
from instar_node.wiring.updates import build_updates


async def build(
    home: Home,
    config: Config,
    foundation: Foundation,
    database: SqliteDatabase,
    clock: Clock,
    events: EventHub,
    known: KnownSecrets,
    restart: Callable[[], None] | None,
) -> NodeParts:
    """All parts of a node, tied together. What is on disk is loaded; nothing runs yet.

    ``restart`` ends the node so that it is started anew; ``None`` when nobody would start it.
    """
    known.add(foundation.vault.values)
    base = _base(home, config, foundation, database, clock, events, known)
    sync = RegistrySync(base.mesh, base.registry, base.lease, events, clock)
    secrets = VaultSync(base.mesh, base.vault, base.registry, base.lease, events, clock)
    tail = await _tail(base, database)
    seal = PlacementSeal(base.identity, base.registry, base.lease.holder_of)
    ledger = MessageProcessingLedger(database, base.lease, clock, base.lease.named_incomplete, seal.believes)
    await ledger.load()
    replication = ReplyMarkerTransport(
        base.mesh, base.registry, base.lease, ledger, clock, events.publish, base.lease.on_slow
    )
    base.registry.on_change(base.mesh.refresh)
    base.registry.on_change(replication.refresh)
    state = _state(home, base, secrets, ledger, database)
    secrets.require_current = state.require_current
    return _delivery_and_pool(home, base, sync, secrets, state, tail, ledger, replication, database, restart)


def _state(
    home: Home, base: Base, secrets: VaultSync, ledger: MessageProcessingLedger, database: SqliteDatabase
) -> StateSync:
    pins = PinsCopy(ledger.placements, base.events)
    state = StateSync(
        home=home,
        identity=base.identity,
        registry=base.registry,
        mesh=base.mesh,
        lease=LeaseOfState(base.lease),
        find_hub=StateHubs(lambda: base.lease.hub, home.state_repository),
        prove=prove,
        events=base.events,
        clock=base.clock,
        own_files=lambda: {**pins.files(), **base.vault.files()},
        learn_secrets=secrets.learn,
        checkpoints=LedgerCheckpoints(ledger, database),
    )
    base.vault.on_change(state.look_again)
    base.lease.vouch_for(state)
    return state


def _base(
    home: Home,
    config: Config,
    foundation: Foundation,
    database: SqliteDatabase,
    clock: Clock,
    events: EventHub,
    known: KnownSecrets,
) -> Base:
    identity, registry = foundation.identity, foundation.registry

    def signed(machine: str, data: bytes, signature: bytes) -> bool:
        return signed_by_member(registry, machine, data, signature)

    incarnation = clock.token_hex(8)
    mesh = TunnelMesh(
        identity,
        registry,
        clock,
        events,
        incarnation=incarnation,
        version=foundation.build.version,
        protocol_range=foundation.build.protocol,
        own_urls=foundation.urls,
    )
    lease = LeaseService(
        me=identity.machine_id,
        incarnation=incarnation,
        build=foundation.build,
        settings=config.lease,
        hubs=_hubs(home, foundation, mesh, signed),
        sign=lambda data: identity.sign(PURPOSE, registry.mesh_id, data),
        verify=signed,
        members=registry,
        mesh=mesh,
        database=database,
        clock=clock,
        events=events,
        durable_path=home.machine / LEASE_FILE,
        eligible=not foundation.witness,
    )
    if foundation.witness and lease.holder == identity.machine_id:
        raise InstarError(
            "is-awake",
            "this machine holds the lease, so it cannot become a witness",
            "start it without --witness and hand off first: `instar handoff MACHINE`",
        )
    lease.move.on_moved = lambda hub: foundation.record(hub=hub.wire_url)
    return Base(
        config,
        clock,
        events,
        identity,
        registry,
        foundation.vault,
        known,
        mesh,
        lease,
        foundation.build,
        HeardBuilds(home.machine / "versions.json", mesh),
        foundation.urls,
        foundation.witness,
        Surprises(clock),
        list(foundation.warnings),
    )


def _hubs(home: Home, foundation: Foundation, mesh: TunnelMesh, signed: Verifier) -> Hubs:
    """The hubs of this node; a witness serves its own register from now on."""
    me = foundation.identity.machine_id
    register = WitnessRegister(home.register, signed)
    if foundation.witness:
        register.serve(mesh)
    return Hubs(
        home,
        foundation.hub,
        lambda machine: WitnessLeaseStore(register if machine == me else WitnessCells(mesh, machine)),
    )


def signed_by_member(registry: MachineRegistry, machine: str, data: bytes, signature: bytes) -> bool:
    """Whether a machine that is still a member signed this for the lease of this mesh."""
    member = registry.get(machine)
    if member is None or member.removed:
        return False
    return verify(member.signing_public, PURPOSE, registry.mesh_id, data, signature)


def _may_succeed(
    base: Base, replication: ReplyMarkerTransport, verification: Verification, machine: str
) -> bool:
    """Whether a machine may stand in the electorate: it has every row, its version can take over, and no
    drill has shown that something between the two does not work."""
    info = base.mesh.info(machine)
    fit = info is not None and info.compatible and replication.caught_up(machine)
    return fit and verification.refusal("succession", machine) is None


async def _tail(base: Base, database: SqliteDatabase) -> TailParts:
    settings = base.config.livetail
    buffer = await LiveTailBuffer.open(database, base.clock, settings.max_bytes_per_topic)
    source = LiveTailSource(buffer, base.lease, base.clock, Redactor(base.known, settings.redact))
    transport = HttpLiveTailTransport(source, buffer, base.mesh, base.lease, base.clock, base.events)
    return TailParts(buffer, source, transport)


def _delivery_and_pool(
    home: Home,
    base: Base,
    sync: RegistrySync,
    secrets: VaultSync,
    state: StateSync,
    tail: TailParts,
    ledger: MessageProcessingLedger,
    replication: ReplyMarkerTransport,
    database: SqliteDatabase,
    restart: Callable[[], None] | None,
) -> NodeParts:
    config, lease, publish = base.config, base.lease, base.events.publish
    records = RunRecords(home.machine / "runs.json")
    records.reap()

    def until(key: str) -> int:
        granted = pool.host.deadline(key) if pool is not None else None
        return lease.acting_until() if granted is None else granted

    bare = build_agent(
        config.agent, records, base.vault.value, until, base.clock, home.machine / "agent-sessions"
    )
    agent = DiscreetAgent(bare, base.known.blank)
    channels = build_channels(config.channels, base.vault.value, base.clock, publish)
    conversation = Conversation(database, ledger.log)
    compactor = Compactor(database, ledger.log, base.clock, config.ledger.keep_text_days)
    outbox = FencedOutbox(ledger, replication, lease, channels, base.clock, publish, lease.read_now)
    pool: PoolParts | None = None
    runner: AgentRunner = agent
    if config.pool.enabled:
        placements = LedgerPlacements(
            ledger, replication, PlacementSeal(base.identity, base.registry, lease.holder_of)
        )
        pool, runner = _pool(
            base,
            agent,
            tail,
            placements,
            WorkInTopics(lambda: delivery),
            lambda machine: _barred(base, checks.verification, machine),
        )
    delivery = Delivery(
        ledger,
        replication,
        outbox,
        runner,
        lease,
        channels,
        tail.source,
        conversation.history,
        base.clock,
        publish,
        config.agent.history,
        blank=base.known.blank,
        at_once=lambda text: pool is not None and pool.commands.recognise(text) is not None,
    )
    parts = DeliveryParts(ledger, replication, outbox, conversation, compactor, agent, delivery)
    updates = build_updates(home, base, restart, lambda: handoffs)
    checks = build_verification(home, base, tail, parts, pool, lambda: handoffs)
    handoffs = build_handoffs(base, tail, parts, state, pool, checks.verification)
    lease.caught_up = lambda machine: _may_succeed(base, replication, checks.verification, machine)
    lease.missing = ledger.missing
    _bench_the_unfit(base, checks.verification)
    addresses = AddressBook(base.mesh, base.registry, lease, base.clock, base.urls, base.mesh.announced_urls)
    return NodeParts(base, sync, addresses, secrets, state, tail, parts, pool, handoffs, checks, updates)


def _barred(base: Base, verification: Verification, machine: str) -> InstarError | None:
    """Why nothing new is run on a machine; ``None`` when it may be."""
    reason = held_back(build_of(base, machine), base.build)
    if reason is not None:
        name = base.registry.nickname(machine)
        return InstarError(
            "incompatible", f"{name} is {reason}", f"update it first: `instar update` on {name}"
        )
    return verification.refusal("transfer", machine)


def _bench_the_unfit(base: Base, verification: Verification) -> None:
    """Whoever could not follow the awake machine must neither be waited for nor take over: look whenever a
    machine greets, the electorate changes, or a drill has ended."""

    def look(*_: object) -> None:
        for machine in base.lease.ack_set():
            info = base.mesh.info(machine)
            if info is not None and not info.compatible:
                base.lease.bench(machine, f"version {info.version} cannot follow this one")
            elif verification.refusal("succession", machine) is not None:
                base.lease.bench(machine, "a gate is shut for it")

    base.mesh.on_peer(look)
    base.lease.on_change(look)
    verification.on_change(look)


def _pool(
    base: Base,
    agent: AgentRunner,
    tail: TailParts,
    placements: LedgerPlacements,
    work: WorkInTopics,
    barred: Barred,
) -> tuple[PoolParts, AgentRunner]:
    mesh, lease, clock, events = base.mesh, base.lease, base.clock, base.events
    pins = TopicPlacementPinStore(placements, lease)
    kind, slots = base.config.agent.kind, base.config.pool.slots
    machines = MachinePoolRegistry(
        mesh,
        base.registry,
        lease,
        pins,
        agent,
        clock,
        barred,
        kind,
        slots,
        occupies=kind == "command",  # the others run no process: they answer at once, or leave it to a person
    )
    host = RunHost(agent, mesh, lease, clock, events)
    settings = base.config.lease
    router = SessionRouter(
        host,
        pins,
        machines,
        mesh,
        lease,
        clock,
        events,
        holder_before=lease.holder_before,
        grant_ttl_us=settings.ttl_ms * 1_000,
        drift=settings.drift,
    )
    nicknames = RelocationNicknameSet(base.registry, base.me)
    first = TailFirst(tail.transport, base.registry, lease)
    transfers = Transfers(router, pins, machines, nicknames, base.registry, lease, work, first, clock, events)
    queued = QueuedMoves(router, pins, machines, base.registry, mesh, lease, first, events)
    commands = NicknameCommand(nicknames)
    runner = ChatCommands(router, commands, transfers)
    agreement = PlacementAgreement(pins, mesh, lease, clock)
    return PoolParts(pins, host, machines, router, transfers, queued, agreement, commands), runner
