"""The two ends of one sealed connection, introduced to each other."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from instar_node.mesh.channel import Channel, Pairing, RekeyPolicy


def channels(policy: RekeyPolicy, now: int = 0) -> tuple[Channel, Channel]:
    """The caller's and the called one's, as they are at ``now`` (microseconds)."""
    one, two = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    caller = Pairing(one, two.public_key().public_bytes_raw(), "mesh", "a", "b", True)
    called = Pairing(two, one.public_key().public_bytes_raw(), "mesh", "a", "b", False)
    first, second = caller.handshake(), called.handshake()
    second.read_message(first.write_message())
    first.read_message(second.write_message())
    return Channel(caller, first, policy, now), Channel(called, second, policy, now)
