"""The colour-blind-safe theme, as eyes without red or green cones see it."""

from __future__ import annotations

from itertools import combinations

import pytest
from textual.color import Color

from instar_tui.theme import SAFE

MEANINGS = ("awake", "standby", "needs-you", "danger", "muted")
APART = 25.0
"""Least distance of two meanings in CIELAB (CIE76); about 2.3 is just noticeable side by side."""
READABLE = 4.5
"""Least contrast of text (WCAG 2.2, 1.4.3)."""

Triple = tuple[float, float, float]
EYES: dict[str, tuple[Triple, Triple, Triple]] = {
    "every cone": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    # Machado, Oliveira, Fernandes (2009), severity 1.0, on linear RGB.
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}
XYZ_OF_SRGB: tuple[Triple, Triple, Triple] = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
D65 = (0.95047, 1.0, 1.08883)


def _times(matrix: tuple[Triple, Triple, Triple], vector: Triple) -> Triple:
    first, second, third = (sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)
    return first, second, third


def _linear(colour: str) -> Triple:
    """Linear RGB, 0 to 1 (IEC 61966-2-1)."""
    parts = [channel / 255 for channel in Color.parse(colour).rgb]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return red, green, blue


def _seen(colour: str, eyes: str) -> Triple:
    """CIELAB of a colour as these eyes see it."""
    red, green, blue = (min(1.0, max(0.0, part)) for part in _times(EYES[eyes], _linear(colour)))
    parts = [part / white for part, white in zip(_times(XYZ_OF_SRGB, (red, green, blue)), D65, strict=True)]
    x, y, z = (p ** (1 / 3) if p > 216 / 24389 else (24389 / 27 * p + 16) / 116 for p in parts)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _distance(one: str, other: str, eyes: str) -> float:
    pairs = zip(_seen(one, eyes), _seen(other, eyes), strict=True)
    return float(sum((a - b) ** 2 for a, b in pairs) ** 0.5)


def _luminance(colour: str) -> float:
    return _times(XYZ_OF_SRGB, _linear(colour))[1]


@pytest.mark.parametrize("eyes", EYES)
def test_meanings_are_told_apart_without_red_or_green(eyes: str) -> None:
    colours = SAFE.variables
    near = {
        (one, other): round(distance, 1)
        for one, other in combinations(MEANINGS, 2)
        if (distance := _distance(colours[one], colours[other], eyes)) < APART
    }
    assert near == {}


def test_the_measure_finds_the_classic_confusion() -> None:
    assert _distance("#00a000", "#c00000", "every cone") > 100
    assert _distance("#6aa300", "#c88000", "deuteranopia") < APART


def test_every_meaning_is_readable_on_the_background_and_on_its_own_band() -> None:
    colours, background = SAFE.variables, _luminance(SAFE.background or "")
    for meaning in MEANINGS:
        assert (_luminance(colours[meaning]) + 0.05) / (background + 0.05) >= READABLE, meaning
