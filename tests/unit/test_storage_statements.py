"""Many rows in few statements."""

from __future__ import annotations

import sqlite3

import pytest

from instar_node.storage.statements import insert_rows, select_known


@pytest.fixture
def connection() -> sqlite3.Connection:
    opened = sqlite3.connect(":memory:")
    opened.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
    return opened


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 128, 129, 300])
def test_as_many_rows_as_there_are_come_and_are_found(connection: sqlite3.Connection, count: int) -> None:
    insert_rows(connection, "t", [(n, str(n)) for n in range(count)])
    assert connection.execute("SELECT k, v FROM t ORDER BY k").fetchall() == [
        (n, str(n)) for n in range(count)
    ]
    assert select_known(connection, "k", "t", range(-count, 2 * count)) == set(range(count))


@pytest.mark.parametrize(("count", "most"), [(15, 1), (37, 2), (64, 1), (127, 2)])
def test_a_group_takes_few_statements(connection: sqlite3.Connection, count: int, most: int) -> None:
    statements: list[str] = []
    connection.isolation_level = None
    connection.set_trace_callback(statements.append)
    insert_rows(connection, "t", [(n, str(n)) for n in range(count)])
    assert len(statements) <= most
    statements.clear()
    select_known(connection, "k", "t", range(count))
    assert len(statements) == 1
