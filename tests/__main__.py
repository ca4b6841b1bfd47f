"""``python -m tests``: everything that must hold, in one command.

Style, types and import contracts first, then all tests. Every step runs even when an earlier one failed, so
that one run shows everything; the exit status is 0 only when all passed. Arguments are handed to pytest.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
STEPS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
    # tests of real processes share one group (see conftest.py): they run one after the other, on one worker
    ("pytest", "-n", "2", "--dist", "loadgroup"),
)


def passes(name: str, *arguments: str) -> bool:
    """Run one tool of this environment from the root of the tree; say what runs, and whether it passed."""
    print(f"$ {shlex.join((name, *arguments))}", flush=True)
    path = os.pathsep.join((str(BIN), os.environ.get("PATH", "")))
    ran = subprocess.run((BIN / name, *arguments), cwd=ROOT, check=False, env={**os.environ, "PATH": path})
    return ran.returncode == 0


def main(arguments: list[str]) -> int:
    """Run all steps; 0 when every one passed."""
    *checks, tests = STEPS
    failed = [shlex.join(step) for step in [*checks, (*tests, *arguments)] if not passes(*step)]
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
