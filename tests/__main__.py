"""``python -m tests``: everything that must hold, in one command.

Style, types and import contracts first, then all tests. Every step runs even when an earlier one failed, so
that one run shows everything; the exit status is 0 only when all passed. Arguments are handed to pytest.

Some tests start real nodes with leases of a second or two, and another program on the same computer can stop
those for longer. So tests that failed are run once more, alone: what fails again has failed, and what does
not is named as a test that needed a second try.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)
TESTS = ("pytest", "-n", "2", "--dist", "loadgroup", "--cache-clear")
"""Tests of real processes share one group (see conftest.py): they run one after the other, on one worker."""
AGAIN = ("pytest", "-r", "p")
FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
SOME_FAILED = 1
"""pytest's exit status when all tests ran and some failed; any other says that they did not run at all."""


def run(name: str, *arguments: str) -> int:
    """Run one tool of this environment from the root of the tree; say what runs. Its exit status."""
    print(f"$ {shlex.join((name, *arguments))}", flush=True)
    path = os.pathsep.join((str(BIN), os.environ.get("PATH", "")))
    ran = subprocess.run((BIN / name, *arguments), cwd=ROOT, check=False, env={**os.environ, "PATH": path})
    return ran.returncode


def tests_pass(arguments: list[str]) -> bool:
    """Run the tests; those that failed once more, one after the other, and say so."""
    status = run(*TESTS, *arguments)
    if status != SOME_FAILED:
        return status == 0
    print("tests failed; once more, alone:", flush=True)
    if run(*AGAIN, *failed_tests()) != 0:
        return False
    print("the tests listed above needed a second try; everything else passed at once", flush=True)
    return True


def failed_tests() -> list[str]:
    """What pytest noted as failed; an id may end in ``@group``, by which tests were spread over workers."""
    return [re.sub(r"@[\w-]+\Z", "", test) for test in json.loads(FAILED.read_text())]


def main(arguments: list[str]) -> int:
    """Run all steps; 0 when every one passed."""
    failed = [shlex.join(step) for step in CHECKS if run(*step) != 0]
    if not tests_pass(arguments):
        failed.append(shlex.join(TESTS))
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
