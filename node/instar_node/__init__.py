"""instar_node: the mesh node. It knows no terminal; people reach it through ``instar_node.api``."""

__version__ = "0.1.0"
PROTOCOL = 1
"""Version of the messages between machines; a peer speaking another range is held back."""
PROTOCOL_RANGE = (1, 1)
"""Lowest and highest protocol this build can speak."""
