"""What is wrong and how to mend it: the verdict with its alerts, the doctor's checks, what was counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from instar_tui.widgets.checks import Panel
from instar_tui.widgets.chrome import Framed
from instar_tui.widgets.live import Line, hanging, heading
from instar_tui.widgets.text import fit, plural, shown, span
from instar_tui.widgets.vocabulary import FINDINGS, HEALTH

if TYPE_CHECKING:
    from instar_node.api.types import Finding
    from instar_tui.widgets.checks import Checks

CHECK = 10
"""Cells of a check's name."""
ROOMY = 34
"""Lines of a terminal from which on each check that is well gets a line of its own."""
TOLD_ABOVE = frozenset({"alert", "outbox"})
"""Checks of the doctor that the verdict above shows already."""


class Verdict(Panel):
    """One line, then every alert with what to do about it."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        health = status.health
        to_mend = _to_mend(self.checks)
        broken = any(finding.state == "problem" for finding in to_mend)
        mark = HEALTH["degraded" if broken and health.status == "ok" else health.status]
        yield [
            (f" {mark.glyph} {mark.word}", f"bold {mark.style}"),
            (f"   version {shown(health.version)}", "$muted"),
        ]
        for alert in health.alerts:
            yield []
            yield from hanging((" ⚠ ", "bold $needs-you"), alert.message, "bold", width)
            if alert.hint:
                yield from hanging(("   ", ""), alert.hint, "", width)
        remarks = len(to_mend)
        if remarks:
            yield [(f"   the doctor has {plural(remarks, 'remark')}", "$needs-you")]
        if not status.outbox:
            calm = "" if health.alerts or remarks else "nothing needs you; "
            yield [(f"   {calm}no reply is undecided", "$muted")]
        yield []


class Findings(Panel):
    """What the doctor looked at: first what is to be mended, with how, then what is well."""

    def build(self, width: int) -> Iterable[Line]:
        doctor = self.checks.doctor
        if doctor is None:
            return
        found = [finding for finding in doctor.findings if finding.check not in TOLD_ABOVE]
        troubled = _to_mend(self.checks)
        well = [finding for finding in found if finding.state == "ok"]
        note = (
            f"{len(troubled)} of {len(found)} to mend"
            if troubled
            else f"{plural(len(found), 'check')}, all well"
        )
        yield heading("doctor", width, note)
        for finding in troubled:
            yield from _finding(finding, width)
        if well and self.app.size.height < ROOMY:
            names = ", ".join(dict.fromkeys(finding.check for finding in well))
            yield from hanging((" ✔ ", "$awake"), names, "$muted", width)
        else:
            for finding in well:
                yield from _finding(finding, width)
        yield []


def _to_mend(checks: Checks) -> list[Finding]:
    """What the doctor found that the verdict does not tell already, problems first."""
    found = checks.doctor.findings if checks.doctor is not None else []
    rows = [row for row in found if row.state != "ok" and row.check not in TOLD_ABOVE]
    return sorted(rows, key=lambda row: row.state)


def _finding(finding: Finding, width: int) -> Iterable[Line]:
    mark = FINDINGS[finding.state]
    name = fit(shown(finding.check), CHECK)
    if finding.state == "ok":
        room = max(10, width - CHECK - 4)
        yield [(f" {mark.glyph} ", mark.style), (name, ""), (fit(shown(finding.message), room), "$muted")]
        return
    yield from hanging((f" {mark.glyph} {name}", mark.style), finding.message, "", width)
    if finding.hint:
        yield from hanging((f"{'':{CHECK}} → ", "$muted"), finding.hint, "bold", width)


class Counters(Framed):
    """What was counted since the node's start, in columns when there is room."""

    def build(self, width: int) -> Iterable[Line]:
        status = self.mesh.status
        if status is None:
            return
        counters = {
            **status.health.counters,
            **{f"lease {name}": value for name, value in status.lease.counters.items()},
        }
        yield heading("counters", width)
        columns = max(1, width // 44)
        cells = (width - 2) // columns
        entries = [_entry(name, value) for name, value in sorted(counters.items())]
        for start in range(0, len(entries), columns):
            line: Line = [(" ", "")]
            for label, words in entries[start : start + columns]:
                line += [(fit(f"  {shown(label)}", cells - 12), "$muted"), (fit(words, 12), "")]
            yield line


def _entry(name: str, value: int) -> tuple[str, str]:
    """Label and value of a counter; ``_ms`` are durations."""
    for ending, word in (("_ms_ago", " ago"), ("_ms", "")):
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), f"{span(value)}{word}"
    return name.replace("_", " "), f"{value:,}"
