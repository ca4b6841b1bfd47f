"""What drills have shown and persons decided, on disk: ``machine/verification.json``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from instar_node.storage.atomic import read_json, write_atomic
from instar_node.verification.gates import Overrides
from instar_node.verification.report import DrillReport, StepResult, Verifier

KEPT_A_PAIR = 4
"""Reports kept of each runner and peer: the newest may lack a component that an earlier one decided."""

Index = dict[tuple[frozenset[str], str], tuple[DrillReport, StepResult]]

_WAY_OUT = "move it aside and start again: the drills run anew"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reports: tuple[DrillReport, ...] = ()
    overrides: Overrides = Overrides()


class ResultStore:
    """Reports by machines of this mesh. One whose signature does not hold is shown and counts for nothing."""

    def __init__(self, path: Path, verify: Verifier) -> None:
        """Reads what is there. Raises ``InstarError("file-damaged")``, naming the file."""
        self._path = path
        self._verify = verify
        self._file = read_json(path, _File, _WAY_OUT) if path.exists() else _File()
        self._authentic = {report for report in self._file.reports if report.is_authentic(verify)}
        if not self._file.overrides.is_authentic(verify):
            self._file = msgspec.structs.replace(self._file, overrides=Overrides())
        self._decisive = _index(self.authentic)

    @property
    def reports(self) -> tuple[DrillReport, ...]:
        """Every report kept."""
        return self._file.reports

    @property
    def authentic(self) -> tuple[DrillReport, ...]:
        """Those that count."""
        return tuple(report for report in self._file.reports if report in self._authentic)

    @property
    def overrides(self) -> Overrides:
        """What a person decided."""
        return self._file.overrides

    def is_authentic(self, report: DrillReport) -> bool:
        """Whether this kept report counts."""
        return report in self._authentic

    def decisive(self, component: str, one: str, other: str) -> tuple[DrillReport, StepResult] | None:
        """The newest result of a component between two machines, whichever of them ran the drill."""
        return self._decisive.get((frozenset((one, other)), component))

    def next_n(self, runner: str, epoch: int) -> int:
        """The number of the runner's next drill in this epoch."""
        return max((r.n for r in self.reports if (r.runner, r.epoch) == (runner, epoch)), default=0) + 1

    def add(self, reports: Iterable[DrillReport]) -> bool:
        """Keep authentic reports that are new; ``True`` if there was any."""
        fresh = {one for one in reports if one not in self._authentic and one.is_authentic(self._verify)}
        if not fresh:
            return False
        kept = tuple(_newest({*self.reports, *fresh}))
        self._authentic = (self._authentic | fresh) & set(kept)
        self._store(msgspec.structs.replace(self._file, reports=kept))
        self._decisive = _index(self.authentic)
        return True

    def set_overrides(self, overrides: Overrides) -> bool:
        """Take newer authentic decisions over the ones known; ``True`` if they were."""
        if overrides.order <= self.overrides.order or not overrides.is_authentic(self._verify):
            return False
        self._store(msgspec.structs.replace(self._file, overrides=overrides))
        return True

    def _store(self, file: _File) -> None:
        write_atomic(self._path, msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
        self._file = file


def _index(reports: Iterable[DrillReport]) -> Index:
    found: Index = {}
    for report in sorted(reports, key=lambda report: report.order, reverse=True):
        for step in report.steps:
            found.setdefault((frozenset((report.runner, report.peer)), step.component), (report, step))
    return found


def _newest(reports: Iterable[DrillReport]) -> list[DrillReport]:
    """The newest few of each runner and peer, newest first."""
    kept: list[DrillReport] = []
    counts: dict[tuple[str, str], int] = {}
    for report in sorted(reports, key=lambda report: report.order, reverse=True):
        pair = (report.runner, report.peer)
        counts[pair] = counts.get(pair, 0) + 1
        if counts[pair] <= KEPT_A_PAIR:
            kept.append(report)
    return kept
