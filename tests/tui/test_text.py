"""Words and marks: what a person reads is right, and safe to show."""

from __future__ import annotations

from datetime import datetime

import pytest
from rich.cells import cell_len

from instar_tui.state import Sample
from instar_tui.widgets import text
from instar_tui.widgets.banner import banner
from instar_tui.widgets.chart import buckets, height_of, plot


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "–"), (0, "0ms"), (3.42, "3.4ms"), (12, "12ms"), (400, "0.4s"), (5_840, "5.8s"),
        (41_000, "41s"),
        (192_000, "3m 12s"), (720_000, "12m"), (11_520_000, "3h 12m"), (187_200_000, "2d 4h"),
    ],
)  # fmt: skip
def test_a_duration_is_in_the_words_people_use(ms: float | None, words: str) -> None:
    assert text.span(ms) == words


def test_control_and_direction_characters_are_shown_and_not_obeyed() -> None:
    shown = text.shown("a\x1b[31mb\x07\u202ec\nd\x9b")
    assert shown == "a␛[31mb␇\\u202ec⏎ d\\x9b"


def test_a_cut_text_fills_its_cells_exactly_also_with_wide_characters() -> None:
    for width in range(1, 12):
        assert cell_len(text.fit("日本語テキスト", width)) == width
    assert text.fit("abcdef", 4) == "abc…"
    assert text.fit_right("7", 4) == "   7"


def test_a_bar_drains_by_eighths_and_never_overflows() -> None:
    assert text.bar(1.0, 4) == ("████", "")
    assert text.bar(0.5, 4) == ("██", "  ")
    assert text.bar(0.53125, 4) == ("██▏", " ")
    assert text.bar(7.0, 4) == ("████", "")
    assert text.bar(-1.0, 4) == ("", "    ")


def test_yesterday_is_called_yesterday() -> None:
    now = datetime.fromisoformat("2026-11-23T12:00:00+00:00").astimezone()
    assert text.day("2026-11-22T12:00:00Z", now).startswith("yesterday ")
    assert text.day("not a time", now) == "–"


def test_attempts_are_dots_that_fall() -> None:
    assert [text.dots(left, 3) for left in (3, 2, 1, 0)] == ["●●●", "●●○", "●○○", "○○○"]


def test_the_code_is_drawn_in_the_largest_letters_that_fit() -> None:
    code = "RIVER-STONE-4071"
    assert len(banner(code, 200, 11)) == 5
    assert len(banner(code, 118, 11)) == 11
    assert len(banner(code, 80, 7)) == 3
    assert banner(code, 40, 3) == ["R I V E R - S T O N E - 4 0 7 1"]
    assert banner(code, 20, 3) == [code]


@pytest.mark.parametrize("code", ["ABANDON-ABSTRACT-1234", "ZOO-AX-0000", "MAXIMUM-WINDOW-8888"])
def test_no_code_is_drawn_wider_than_its_room(code: str) -> None:
    for width in (24, 60, 80, 118, 198):
        for height in (1, 3, 7, 11):
            lines = banner(code, width, height)
            assert max(map(cell_len, lines)) <= width
            assert len(lines) <= max(1, height)


def test_the_chart_holds_the_last_lag_between_samples_and_keeps_the_worst_of_a_column() -> None:
    samples = [Sample(25, 5), Sample(50, 900), Sample(55, 10), Sample(85, 20)]
    assert buckets(samples, 10, 100, 99) == [None, None, 5, 5, 5, 900, 900, 900, 20, 20]


def test_the_chart_is_logarithmic_and_shows_its_target() -> None:
    assert height_of(1, 8) == 0
    assert height_of(100, 8) == pytest.approx(4)
    assert height_of(10**9, 8) == 8
    lines = plot([Sample(0, 12)], 60, 8, window_ms=60_000, now_ms=1_000, target_ms=40)
    words = ["".join(part for part, _ in line) for line in lines]
    assert any("40ms" in line and "┄" in line for line in words)
    assert all(cell_len(line) <= 60 for line in words)
