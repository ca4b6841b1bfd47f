"""The control centre attached over HTTP, to a daemon that goes away and comes back on another port."""

from __future__ import annotations

from pathlib import Path

from instar_node.api.http_server import ApiServer
from instar_node.config import Config, NodeOptions, UiSettings
from instar_node.storage.home import Home
from instar_tui.app import InstarApp
from instar_tui.embedding import Connection, open_api
from tests.tui.conftest import Centre
from tests.tui.fake_node import FakeConnection, FakeNode


async def test_a_daemon_is_attached_to_lost_and_found_again(node: FakeNode, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    server = ApiServer(node, home)
    await server.start()

    async def connect() -> Connection:
        return await open_api(home, Config(), NodeOptions())

    app = InstarApp(connect, UiSettings())
    try:
        async with app.run_test(size=(120, 36), notifications=True) as pilot:
            centre = Centre(app, pilot, node, FakeConnection(node))
            await centre.until("quiet-river · attached")
            await centre.go("topics")
            await pilot.press("t", "2")
            await centre.until("42 runs on mini")
            await server.stop()
            await centre.until("no contact with the node", 8.0)
            server = ApiServer(node, home)
            await server.start()
            await centre.until(lambda: "no contact" not in centre.text(), 8.0)
            node.epoch = 12
            node.say("lease", "epoch 12")
            await centre.until("epoch 12", 8.0)
    finally:
        await app.mesh.close()
        await server.stop()
