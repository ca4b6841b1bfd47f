"""What happens on the mesh while the pictures are taken: the same each time, and so are they.

Three real nodes are started, paired and talked to; the control centre is attached to the first one and each
screen is saved as an SVG. Nothing is staged but the order of events.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.config import NodeOptions, UiSettings, load_config
from instar_node.errors import InstarError
from instar_node.storage.home import Home
from instar_tui.app import InstarApp
from instar_tui.demo import CONVERSATION, demo_mesh
from instar_tui.embedding import Connection, open_api
from instar_tui.widgets import text
from tests.screenshots.drawing import picture
from tests.screenshots.steady import SteadyApi, SteadyConnection
from tests.tui.standing import StandingClock, StandingDay

FOLDER = Path(__file__).parents[2] / "screenshots"
SIZE = (120, 36)
PLACES = ("overview", "machines", "lease", "tail", "topics", "conversation", "events", "health")
WAIT_S = 60.0
REF = "refs/instar/lease"
"""Where a git hub keeps the lease."""


class Camera:
    """A running control centre and where its pictures go."""

    def __init__(self, app: InstarApp, pilot: Pilot[None]) -> None:
        self.app = app
        self._pilot = pilot

    async def until(self, met: Callable[[], object]) -> None:
        """Wait for the mesh; raises ``TimeoutError``."""
        async with asyncio.timeout(WAIT_S):
            while not met():
                await self._pilot.pause(0.05)

    async def show(self, place: str) -> None:
        """Go to a screen and let it draw."""
        self.app.action_go(place)
        await self._pilot.pause(0.6)

    def save(self, name: str) -> None:
        """Save what is on the screen; how often the picture was fetched before is chance."""
        self.app.mesh.activity.extend([0] * 60)
        self.app.redraw()
        path = FOLDER / f"{name}.svg"
        path.write_text(picture(self.app), encoding="utf-8")
        print(path.relative_to(FOLDER.parent))


async def first_run(folder: Path) -> None:
    """A machine that has just been installed, its node embedded."""
    home = Home(folder / "desk")
    home.prepare()
    config = load_config(home.config)

    async def connect() -> Connection:
        real = await open_api(home, config, NodeOptions(listen="127.0.0.1:0", nickname="desk"))
        return SteadyConnection(real, (await real.api.machines()).machines)

    app = InstarApp(connect, UiSettings(), clock=StandingClock())
    try:
        async with app.run_test(size=SIZE) as pilot:
            camera = Camera(app, pilot)
            await camera.until(lambda: app.mesh.status is not None and app.mesh.status.lease.is_self)
            await camera.show("overview")
            camera.save("first-run")
    finally:
        await app.mesh.close()


def converse(homes: list[Home]) -> None:
    """Let the mesh live a little: messages, a handoff there and back, a pinned topic."""
    desk, mini = BlockingNodeApi(homes[0]), BlockingNodeApi(homes[1])
    others = {machine.machine_id for machine in desk.machines().machines if not machine.is_self}
    patiently(lambda: others <= set(desk.lease().electorate))
    for number, (topic, words) in enumerate(CONVERSATION):
        desk.send(t.SendRequest(topic, words, f"picture-{number}"))
        patiently(lambda topic=topic: desk.messages(topic).messages[-1].role == "agent")
    patiently(lambda: desk.handoff(t.HandoffRequest("mini")).outcome == "awake")
    patiently(lambda: mini.handoff(t.HandoffRequest("desk")).outcome == "awake")
    patiently(lambda: desk.transfer(t.TransferRequest("garden", "mini")).outcome == "moved")
    patiently(lambda: all(gate.state == "open" for gate in desk.flags().gates))  # drills run by themselves


def patiently(attempt: Callable[[], bool]) -> None:
    """Repeat what a mesh that is still settling refuses. Raises ``TimeoutError``."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            if attempt():
                return
        except InstarError as error:
            print(f"not yet: {error.message}", file=sys.stderr)
        time.sleep(0.1)
    raise TimeoutError


def guess_wrong(url: str, folder: Path) -> None:
    """Somebody tries a code that is not the one on the screen."""
    from instar_node.joining import join_home

    stranger = Home(folder / "stranger")
    stranger.prepare()
    try:
        asyncio.run(join_home(stranger, url, "ABLE-ABLE-0000", "stranger"))
    except InstarError as error:
        print(f"as it should be: {error.message}", file=sys.stderr)


def folder_of_hub(homes: list[Home]) -> Path:
    """The hub of the demonstration lies beside its machines."""
    return homes[0].path.parent / "hub.git"


async def mesh_of_three(homes: list[Home], folder: Path, backup: Path) -> None:
    """All screens of a living mesh, attached to its awake machine; at last its hub is put back."""
    config = load_config(homes[0].config)

    async def connect() -> Connection:
        real = await open_api(homes[0], config, NodeOptions())
        by_name = {machine.nickname: machine for machine in (await real.api.machines()).machines}
        return SteadyConnection(real, [by_name[home.path.name] for home in homes])

    app = InstarApp(connect, UiSettings(), clock=StandingClock())
    try:
        async with app.run_test(size=SIZE) as pilot:
            camera = Camera(app, pilot)
            await camera.until(lambda: len(app.mesh.standbys()) == 2)
            await pilot.pause(1)
            for place in PLACES:
                await camera.show(place)
                if place == "health":
                    await camera.until(lambda: app.base_screen().checks.updates is not None)
                    await camera.show(place)
                camera.save(place)
            await drill(camera)
            await transfer(camera)
            await pairing(camera, BlockingNodeApi(homes[0]), folder)
            await camera.show("overview")
            app.theme = "instar-light"
            await pilot.pause(0.5)
            camera.save("overview-light")
            app.theme = "instar-dark"
            app.action_help()
            await pilot.pause(0.5)
            camera.save("help")
            app.screen.dismiss()
            await split_brain(camera, folder_of_hub(homes), backup)
    finally:
        await app.mesh.close()


async def drill(camera: Camera) -> None:
    """A drill while it runs: its first steps are there, the others are still to come."""
    await camera.show("health")
    api = camera.app.mesh.api
    assert isinstance(api, SteadyApi)
    api.drill_steps = 5
    camera.app.base_screen().action_verify("mini", rehearse=True)
    await camera.until(lambda: sum(event.kind == "drill" for event in camera.app.mesh.events) == 5)
    await camera.show("health")
    camera.save("drill")
    api.drill_may_end.set()
    await camera.until(lambda: (op := camera.app.mesh.operation) is not None and op.outcome != "running")


async def split_brain(camera: Camera, hub: Path, backup: Path) -> None:
    """The hub is put back to an old copy of itself: it has forgotten who was awake since."""
    await camera.show("lease")
    put_back = ("git", "--git-dir", str(hub), "fetch", "--quiet", str(backup), f"+{REF}:{REF}")
    await asyncio.to_thread(subprocess.run, put_back, check=True)
    await camera.until(lambda: camera.app.mesh.status.health.split_brain is not None)
    await camera.show("lease")
    camera.save("split-brain")


async def transfer(camera: Camera) -> None:
    """A topic moved with one key, its steps below the table."""
    await camera.show("topics")
    camera.app.operations.transfer("work", "attic")
    await camera.until(lambda: (op := camera.app.mesh.operation) is not None and op.outcome != "running")
    await camera.show("topics")
    camera.save("transfer")


async def pairing(camera: Camera, desk: BlockingNodeApi, folder: Path) -> None:
    """A code on the screen, and one wrong guess at it."""
    await camera.show("pair")
    await camera.until(lambda: camera.app.base_screen().view is not None)
    url = (await asyncio.to_thread(desk.pair_view)).url  # the one on the picture is not real
    assert url is not None
    await asyncio.to_thread(guess_wrong, url, folder)
    await camera.until(lambda: camera.app.base_screen().view.attempts_left == 2)
    await camera.show("pair")
    camera.save("pair")
    camera.app.base_screen().action_cancel_code()


def main() -> None:
    """Draw everything; raises where the mesh does not do what the pictures show."""
    FOLDER.mkdir(exist_ok=True)
    os.environ["TZ"] = "UTC"
    time.tzset()
    setattr(text, "datetime", StandingDay)  # noqa: B010 (a test's replacement, not an assignment of types)
    with tempfile.TemporaryDirectory(prefix="instar-pictures-") as name:
        folder = Path(name)
        asyncio.run(first_run(folder))
        with demo_mesh(3, lambda line: print(line, file=sys.stderr)) as daemons:
            homes = [daemon.home for daemon in daemons]
            backup = folder / "backup.git"
            mirror = ("git", "clone", "--quiet", "--mirror", str(folder_of_hub(homes)), str(backup))
            subprocess.run(mirror, check=True)
            converse(homes)
            asyncio.run(mesh_of_three(homes, folder, backup))
