"""The state of the ledger, from its database alone."""

from __future__ import annotations

import sqlite3

from instar_node.delivery import tables
from instar_node.delivery.state import LedgerState
from instar_node.delivery.transaction import Transaction


def load_state(connection: sqlite3.Connection) -> LedgerState:
    """What the log comes to: what the tables show of it, and the entries after that applied again."""
    state = tables.load_saved(connection)
    newer = tables.entries_after(connection, state.head.position)
    state.absorb(Transaction(connection, state).replay(newer))
    return state


def count_messages(connection: sqlite3.Connection) -> int:
    """How many messages the ledger holds."""
    new = sum(change.before is None for change in load_state(connection).unsaved.changes)
    return tables.count_saved(connection) + new
