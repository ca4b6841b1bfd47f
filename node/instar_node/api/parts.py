"""The running parts of one node, as ``LocalNodeApi`` uses them. Built by ``instar_node.node``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from instar_node.api import types as t
from instar_node.build import Build
from instar_node.clock import Clock
from instar_node.config import Config
from instar_node.coordination.lease_service import LeaseService
from instar_node.delivery.agents.base import Agent
from instar_node.delivery.compaction import Compactor
from instar_node.delivery.conversation import Conversation
from instar_node.delivery.dispatcher import Delivery
from instar_node.delivery.ledger import MessageProcessingLedger
from instar_node.delivery.outbox import FencedOutbox
from instar_node.delivery.replication import ReplyMarkerTransport
from instar_node.events import EventHub
from instar_node.handoff.board import HandoffBoard
from instar_node.handoff.receiver import HandoffReceiver
from instar_node.handoff.sentinel import HandoffSentinel
from instar_node.handoff.shutdown import ShutdownHandoff
from instar_node.handoff.wakeup import Wakeup
from instar_node.identity.address_book import AddressBook
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.registry_sync import RegistrySync
from instar_node.identity.vault import Vault
from instar_node.identity.vault_sync import VaultSync
from instar_node.known_secrets import KnownSecrets
from instar_node.livetail.buffer import LiveTailBuffer
from instar_node.livetail.http_transport import HttpLiveTailTransport
from instar_node.livetail.source import LiveTailSource
from instar_node.mesh.mesh import TunnelMesh
from instar_node.pool.agreement import PlacementAgreement
from instar_node.pool.machine_pool import MachinePoolRegistry
from instar_node.pool.nicknames import NicknameCommand
from instar_node.pool.pins import TopicPlacementPinStore
from instar_node.pool.queued_moves import QueuedMoves
from instar_node.pool.run_host import RunHost
from instar_node.pool.session_router import SessionRouter
from instar_node.pool.transfers import Transfers
from instar_node.surprises import Surprises
from instar_node.sync.state_sync import StateSync
from instar_node.updates.heard_builds import HeardBuilds
from instar_node.updates.local_update import LocalUpdate
from instar_node.updates.restart_handshake import UpdateRestartHandshake
from instar_node.updates.updater import Updater
from instar_node.verification.rehearsals import Rehearsals
from instar_node.verification.verification import Verification


@dataclass(frozen=True)
class Base:
    """What every part stands on."""

    config: Config
    clock: Clock
    events: EventHub
    identity: MachineIdentity
    registry: MachineRegistry
    vault: Vault
    known: KnownSecrets
    """What must not be seen: the values of the vault and those of the settings."""
    mesh: TunnelMesh
    lease: LeaseService
    build: Build
    """The program that runs."""
    heard: HeardBuilds
    """What the others run, or ran when they were last heard."""
    urls: Callable[[], tuple[str, ...]]
    """Where peers reach this machine, as far as it knows now."""
    witness: bool
    surprises: Surprises
    """What failed unexpectedly of late."""
    warnings: list[t.Alert] = field(default_factory=list)
    """Found out at the start and true until the next."""

    @property
    def me(self) -> str:
        """This machine's id."""
        return self.identity.machine_id


@dataclass(frozen=True)
class DeliveryParts:
    """Messages in, answers out."""

    ledger: MessageProcessingLedger
    replication: ReplyMarkerTransport
    outbox: FencedOutbox
    conversation: Conversation
    compactor: Compactor
    agent: Agent
    delivery: Delivery


@dataclass(frozen=True)
class TailParts:
    """The live tail."""

    buffer: LiveTailBuffer
    source: LiveTailSource
    transport: HttpLiveTailTransport


@dataclass(frozen=True)
class PoolParts:
    """Topics on many machines."""

    pins: TopicPlacementPinStore
    host: RunHost
    machines: MachinePoolRegistry
    router: SessionRouter
    transfers: Transfers
    queued: QueuedMoves
    agreement: PlacementAgreement
    commands: NicknameCommand


@dataclass(frozen=True)
class HandoffParts:
    """Changes of the awake machine."""

    board: HandoffBoard
    sentinel: HandoffSentinel
    receiver: HandoffReceiver
    wakeup: Wakeup
    shutdown: ShutdownHandoff


@dataclass(frozen=True)
class VerificationParts:
    """What works between machines, and what may be used."""

    verification: Verification
    rehearsals: Rehearsals


@dataclass(frozen=True)
class UpdateParts:
    """Versions of the program."""

    updater: Updater
    local: LocalUpdate
    handshake: UpdateRestartHandshake


@dataclass(frozen=True)
class NodeParts:
    """Everything. ``pool`` is ``None`` while ``[pool] enabled`` is false."""

    base: Base
    sync: RegistrySync
    addresses: AddressBook
    secrets: VaultSync
    state: StateSync
    tail: TailParts
    delivery: DeliveryParts
    pool: PoolParts | None
    handoff: HandoffParts
    verification: VerificationParts
    updates: UpdateParts
