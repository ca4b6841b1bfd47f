"""Colours with a meaning: own themes, and the same meanings derived for every theme of Textual.

Screens name meanings (``$awake``, ``$needs-you``), never colours. A colour is always accompanied by a glyph
and a word, so that the themes may differ freely and no colour at all (``NO_COLOR``) loses nothing.
"""

from __future__ import annotations

from pathlib import Path

from textual.color import Color
from textual.theme import Theme

_HERE = Path(__file__).resolve().parent
STYLES = _HERE.parent / "styles" if (_HERE.parent / "styles" / "frame.tcss").exists() else _HERE / "styles"
"""The style files of the checkout, or their copy inside the wheel."""

NO_COLOR_THEME = "ansi-dark"
"""With ``NO_COLOR`` the terminal's own colours are used and Textual's filter drops even those."""

DARK = Theme(
    name="instar-dark",
    primary="#7aa2f7",
    secondary="#9aa5ce",
    accent="#5fd7b0",
    success="#5fd7b0",
    warning="#f5b352",
    error="#ff6b74",
    foreground="#d3d9e6",
    background="#10141b",
    surface="#161b24",
    panel="#1c2330",
    dark=True,
    variables={
        "awake": "#5fd7b0",
        "on-awake": "#0b1a16",
        "standby": "#8fb0f5",
        "needs-you": "#f5b352",
        "danger": "#ff6b74",
        "muted": "#7f8aa0",
        "faint": "#313a4b",
        "cursor": "#222c3d",
        "bar": "#161b24",
        "input-selection-background": "#7aa2f7 35%",
        "scrollbar": "#2a3343",
        "scrollbar-background": "#10141b",
        "scrollbar-corner-color": "#10141b",
    },
)

LIGHT = Theme(
    name="instar-light",
    primary="#2f5fc4",
    secondary="#56618a",
    accent="#0b7a5b",
    success="#0b7a5b",
    warning="#a35a00",
    error="#bf1d2c",
    foreground="#1f2733",
    background="#fbfaf7",
    surface="#f1efe9",
    panel="#e8e5dc",
    dark=False,
    variables={
        "awake": "#0b7a5b",
        "on-awake": "#ffffff",
        "standby": "#2f5fc4",
        "needs-you": "#a35a00",
        "danger": "#bf1d2c",
        "muted": "#6a7280",
        "faint": "#d3cfc4",
        "cursor": "#e3e6ee",
        "bar": "#f1efe9",
        "scrollbar": "#d3cfc4",
        "scrollbar-background": "#fbfaf7",
        "scrollbar-corner-color": "#fbfaf7",
    },
)

SAFE = Theme(
    # After Okabe & Ito's palette, the orange reddened until green-blind eyes too tell it from the yellow.
    name="instar-safe",
    primary="#56b4e9",
    secondary="#cc79a7",
    accent="#56b4e9",
    success="#56b4e9",
    warning="#f0e442",
    error="#e0561b",
    foreground="#e6e6e6",
    background="#101114",
    surface="#181a1f",
    panel="#20232a",
    dark=True,
    variables={
        "awake": "#56b4e9",
        "on-awake": "#04121b",
        "standby": "#c5c9d3",
        "needs-you": "#f0e442",
        "danger": "#e0561b",
        "muted": "#7d828e",
        "faint": "#353945",
        "cursor": "#2a2f3a",
        "bar": "#181a1f",
        "scrollbar": "#353945",
        "scrollbar-background": "#101114",
        "scrollbar-corner-color": "#101114",
    },
)

OWN = (DARK, LIGHT, SAFE)


def tokens(theme: Theme) -> dict[str, str]:
    """The meanings of the screens for a theme that does not define them itself."""
    if theme.ansi:
        return {
            "awake": "ansi_green",
            "on-awake": "ansi_black",
            "standby": "ansi_blue",
            "needs-you": "ansi_yellow",
            "danger": "ansi_red",
            "muted": "ansi_bright_black",
            "faint": "ansi_bright_black",
            "cursor": "ansi_default",
            "bar": "ansi_default",
        }
    colours = theme.to_color_system().generate()
    back, fore = Color.parse(colours["background"]), Color.parse(colours["foreground"])
    return {
        "awake": colours["success"],
        "on-awake": back.hex,
        "standby": colours["primary"],
        "needs-you": colours["warning"],
        "danger": colours["error"],
        "muted": back.blend(fore, 0.55).hex,
        "faint": back.blend(fore, 0.2).hex,
        "cursor": back.blend(fore, 0.12).hex,
        "bar": colours["surface"],
    }
