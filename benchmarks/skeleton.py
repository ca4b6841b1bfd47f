"""``python -m benchmarks.skeleton FOLDER``: the least that could be called a message server, as a measure.

aiohttp takes a JSON message, one thread writes what has come meanwhile to SQLite in one transaction
(``synchronous=FULL``), the message is acknowledged, and an answer is written in the same way. No lease, no
channel, no order, no history, no other machine. How many messages it takes says how quick the computer is.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

Job = tuple[str, tuple[str, ...], asyncio.Future[None]]
"""A statement, its values, and what is settled when they are on the disk."""

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE messages (key TEXT PRIMARY KEY, topic TEXT, text TEXT);
CREATE TABLE replies (key TEXT PRIMARY KEY, topic TEXT, text TEXT);
"""
MESSAGE = "INSERT INTO messages VALUES (?, ?, ?)"
REPLY = "INSERT INTO replies VALUES (?, ?, ?)"


class Store:
    """One thread that writes, all that waits at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    async def write(self, statement: str, *values: str) -> None:
        """Returns when it is on the disk."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((statement, values, done))
        await done

    def _write(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.executescript(TABLES)
        while True:
            group = [self._jobs.get(), *self._waiting()]
            database.execute("BEGIN")
            for statement, values, _ in group:
                database.execute(statement, values)
            database.execute("COMMIT")
            self._loop.call_soon_threadsafe(_settle, [done for _, _, done in group])

    def _waiting(self) -> Iterator[Job]:
        while not self._jobs.empty():
            yield self._jobs.get()


def _settle(written: list[asyncio.Future[None]]) -> None:
    for done in written:
        done.set_result(None)


async def serve(folder: Path) -> None:
    """Take messages until killed. Prints the address when it does."""
    store, answering = Store(folder / "skeleton.db"), set[asyncio.Task[None]]()

    async def take(request: web.Request) -> web.Response:
        message = await request.json()
        key, topic, text = message["key"], message["topic"], message["text"]
        await store.write(MESSAGE, key, topic, text)
        task = asyncio.create_task(store.write(REPLY, key, topic, text))
        answering.add(task)
        task.add_done_callback(answering.discard)
        return web.json_response({"key": key, "state": "received"})

    async def unanswered(_: web.Request) -> web.Response:
        return web.json_response(len(answering))

    app = web.Application()
    app.add_routes([web.post("/messages", take), web.get("/unanswered", unanswered)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
