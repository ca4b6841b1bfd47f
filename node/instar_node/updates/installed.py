"""What the next start of this node would run, and installing something newer."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from instar_node.build import Build
from instar_node.errors import InstarError

_ASK = (
    "import sys, msgspec; from instar_node.build import this_build; "
    "sys.stdout.buffer.write(msgspec.json.encode(this_build()))"
)
ASK_S = 30.0
INSTALL_S = 600.0
SAID = 400
"""Characters of a failed command's last words that are passed on."""


async def installed_build() -> Build:
    """The version that this interpreter would load now. Raises ``InstarError("not-installed")``."""
    said = await _run((sys.executable, "-c", _ASK), ASK_S, "asking for the installed version")
    try:
        return msgspec.json.decode(said, type=Build)
    except msgspec.DecodeError as error:
        raise InstarError("not-installed", f"the installed program cannot be read: {error}") from error


async def install(command: tuple[str, ...]) -> None:
    """Run the person's own install command, if there is one. Raises ``InstarError("not-installed")``."""
    if command:
        await _run(command, INSTALL_S, " ".join(command))


async def _run(command: tuple[str, ...], within: float, what: str) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        raise InstarError("not-installed", f"{what}: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(within):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise InstarError("not-installed", f"{what}: no end within {within:g} s") from None
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        words = said.decode(errors="replace").strip()[-SAID:]
        raise InstarError("not-installed", f"{what} ended with status {process.returncode}: {words}")
    return said
