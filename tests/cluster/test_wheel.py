"""The built wheel, as people install it: it brings its styles, and its programs start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SHOW = """
import asyncio, pathlib, sys
import instar_node, instar_tui
from instar_node.config import Config, NodeOptions
from instar_node.storage.home import Home
from instar_tui.app import InstarApp
from instar_tui.embedding import open_api

where = pathlib.Path(sys.argv[1])
assert pathlib.Path(instar_tui.__file__).is_relative_to(where), instar_tui.__file__
assert pathlib.Path(instar_node.__file__).is_relative_to(where), instar_node.__file__
home = Home(where / "home")
home.prepare()

async def main():
    app = InstarApp(lambda: open_api(home, Config(), NodeOptions(listen="127.0.0.1:0")), Config().ui)
    async with app.run_test() as pilot:
        while app.mesh.status is None or app.mesh.status.health.role != "awake":
            await pilot.pause(0.05)
        print(app.stylesheet.source.keys().__len__() > 1, app.mesh.status.me.role)
    await app.mesh.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked as an installer does it, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def test_the_control_centre_of_the_wheel_shows_an_awake_node(installed: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    ran = subprocess.run(
        [sys.executable, "-c", SHOW, str(installed)],
        cwd=installed,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "True awake\n"), ran.stderr


def test_the_commands_of_the_wheel_are_there(installed: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(installed)}
    for program in ("instar", "instar-tui"):
        ran = subprocess.run(
            [sys.executable, str(installed / "bin" / program), "--help"],
            cwd=installed,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Usage:" in ran.stdout
