"""Runs ``telegram-test-api`` (npm, MIT), an emulator of the Telegram Bot API that was not written here.

It is installed beside this file at the first use; ``INSTAR_TELEGRAM_EMULATOR`` names another folder for it.
Without npm or a registry, the tests that need it are skipped and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
INSTALL_S = 90


def unavailable() -> str | None:
    """Why the emulator cannot run here; ``None`` when it can."""
    if shutil.which("node") is None:
        return "there is no node"
    if (_folder() / "node_modules" / "telegram-test-api").is_dir():
        return None
    if shutil.which("npm") is None:
        return "there is no npm to install telegram-test-api with"
    command = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=_folder(), capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "npm install took too long"
    return None if done.returncode == 0 else f"npm install failed: {done.stderr.strip()[-200:]}"


@contextmanager
def running() -> Iterator[str]:
    """A running emulator; yields its URL."""
    modules = {"NODE_PATH": str(_folder() / "node_modules")}
    process = subprocess.Popen(
        ["node", str(HERE / "serve.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **modules},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _folder() -> Path:
    return Path(os.environ.get("INSTAR_TELEGRAM_EMULATOR", HERE))
