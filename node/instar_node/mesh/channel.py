"""The keys of one tunnel: sealing, opening and changing them. Pure: time is handed in.

Rekeying runs a whole new Noise handshake inside the tunnel, driven by the side that dialled::

    dialler                                 acceptor
      RekeyOpen (message 1)  ─────────────►
                             ◄─────────────  RekeyAnswer (message 2), then sends under the new key
      RekeyDone              ─────────────►
      then sends under the new key

Each side changes its sending key right after sealing the message that says so, and its receiving key right
after opening it; messages are ordered, so none is lost and none is opened under the wrong key. The old keys
are dropped then. The new handshake is bound to the old one through the prologue.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from instar_node.clock import MICROS_PER_SECOND
from instar_node.mesh.frames import (
    TUNNEL_VERSION,
    Control,
    FrameError,
    RekeyAnswer,
    RekeyDone,
    RekeyOpen,
    control_piece,
)
from instar_node.mesh.noise import CipherState, Handshake


class TunnelIdentity(Protocol):
    """What the tunnel needs of this machine's identity."""

    @property
    def machine_id(self) -> str: ...

    @property
    def encryption_private(self) -> X25519PrivateKey: ...


class RekeyPolicy(msgspec.Struct, frozen=True):
    """When keys change (as WireGuard: 120 s, refused beyond 180 s)."""

    after_us: int = 120 * MICROS_PER_SECOND
    after_messages: int = 2**20
    refuse_us: int = 180 * MICROS_PER_SECOND
    """A key older than this is used no more; the connection ends."""
    refuse_messages: int = 2**21


class Pairing(msgspec.Struct, frozen=True):
    """The agreed facts of one tunnel: whose keys, in which mesh, who dialled."""

    private: X25519PrivateKey
    remote_public: bytes
    mesh_id: str
    caller: str
    called: str
    initiator: bool

    def handshake(self, bound_to: bytes = b"") -> Handshake:
        """A new handshake; ``bound_to`` is the hash of the session it renews."""
        context = ("instar-tunnel", TUNNEL_VERSION, self.mesh_id, self.caller, self.called, bound_to)
        prologue = msgspec.msgpack.encode(context)
        return Handshake(self.initiator, self.private, self.remote_public, prologue)


class Channel:
    """Seals and opens the transport messages of one tunnel.

    Args:
        pairing: Whose tunnel it is.
        handshake: The finished first handshake.
        policy: When keys change.
        now: Microseconds, the birth of the first keys.
    """

    def __init__(self, pairing: Pairing, handshake: Handshake, policy: RekeyPolicy, now: int) -> None:
        self._pairing = pairing
        self._policy = policy
        self._sending, self._receiving = handshake.split()
        self._hash = handshake.handshake_hash
        self._born = now
        self._renewal: Handshake | None = None
        self._next: tuple[CipherState, CipherState] | None = None
        self._announced = False

    @property
    def rekeying(self) -> bool:
        """Whether a change of keys is under way."""
        return self._renewal is not None or self._next is not None

    def seal(self, piece: bytes) -> bytes:
        """Seal the next piece of data."""
        return self._sending.encrypt(piece)

    def seal_control(self, message: Control, now: int) -> bytes:
        """Seal a control message, changing the sending key where the message announces it."""
        sealed = self._sending.encrypt(control_piece(message))
        if isinstance(message, (RekeyAnswer, RekeyDone)):
            assert self._next is not None
            self._sending = self._next[0]
            self._announced = True
            if isinstance(message, RekeyDone):
                self._complete(now)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        """Open the next message. Raises ``NoiseError`` when it is not exactly that."""
        return self._receiving.decrypt(sealed)

    def rekey_due(self, now: int) -> bool:
        """Whether this side should begin a change of keys now."""
        if not self._pairing.initiator or self.rekeying:
            return False
        used = max(self._sending.count, self._receiving.count)
        return used >= self._policy.after_messages or now - self._born >= self._policy.after_us

    def worn_out(self, now: int) -> bool:
        """Whether the keys must not be used any more."""
        used = max(self._sending.count, self._receiving.count)
        return used >= self._policy.refuse_messages or now - self._born >= self._policy.refuse_us

    def begin_rekey(self) -> RekeyOpen:
        """Begin a change of keys; send what is returned."""
        self._renewal = self._pairing.handshake(self._hash)
        return RekeyOpen(self._renewal.write_message())

    def rekey_step(self, message: RekeyOpen | RekeyAnswer | RekeyDone, now: int) -> Control | None:
        """Take the other side's step; send what is returned, if anything.

        Raises:
            FrameError: The step is out of turn.
            NoiseError: It does not authenticate.
        """
        if isinstance(message, RekeyOpen):
            return self._answer(message)
        if isinstance(message, RekeyAnswer):
            return self._finish(message)
        if self._next is None or self._pairing.initiator or not self._announced:
            raise FrameError("change of keys out of turn")
        self._receiving = self._next[1]
        self._complete(now)
        return None

    def _answer(self, message: RekeyOpen) -> RekeyAnswer:
        if self._pairing.initiator or self.rekeying:
            raise FrameError("change of keys out of turn")
        handshake = self._pairing.handshake(self._hash)
        handshake.read_message(message.noise)
        answer = RekeyAnswer(handshake.write_message())
        self._next, self._hash = handshake.split(), handshake.handshake_hash
        return answer

    def _finish(self, message: RekeyAnswer) -> RekeyDone:
        if self._renewal is None:
            raise FrameError("change of keys out of turn")
        self._renewal.read_message(message.noise)
        self._next, self._hash = self._renewal.split(), self._renewal.handshake_hash
        self._renewal = None
        self._receiving = self._next[1]
        return RekeyDone()

    def _complete(self, now: int) -> None:
        self._next = None
        self._announced = False
        self._born = now
