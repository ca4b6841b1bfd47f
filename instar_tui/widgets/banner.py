"""Large letters from half blocks: a pairing code or an epoch that can be read from across the room."""

from __future__ import annotations

from itertools import zip_longest

from rich.cells import cell_len

_FONT = {
    "A": (".##.", "#..#", "####", "#..#", "#..#"),
    "B": ("###.", "#..#", "###.", "#..#", "###."),
    "C": (".###", "#...", "#...", "#...", ".###"),
    "D": ("###.", "#..#", "#..#", "#..#", "###."),
    "E": ("####", "#...", "###.", "#...", "####"),
    "F": ("####", "#...", "###.", "#...", "#..."),
    "G": (".###", "#...", "#.##", "#..#", ".###"),
    "H": ("#..#", "#..#", "####", "#..#", "#..#"),
    "I": ("###", ".#.", ".#.", ".#.", "###"),
    "J": ("..##", "...#", "...#", "#..#", ".##."),
    "K": ("#..#", "#.#.", "##..", "#.#.", "#..#"),
    "L": ("#...", "#...", "#...", "#...", "####"),
    "M": ("#...#", "##.##", "#.#.#", "#...#", "#...#"),
    "N": ("#..#", "##.#", "#.##", "#..#", "#..#"),
    "O": (".##.", "#..#", "#..#", "#..#", ".##."),
    "P": ("###.", "#..#", "###.", "#...", "#..."),
    "Q": (".##.", "#..#", "#..#", "#.#.", ".#.#"),
    "R": ("###.", "#..#", "###.", "#.#.", "#..#"),
    "S": (".###", "#...", ".##.", "...#", "###."),
    "T": ("#####", "..#..", "..#..", "..#..", "..#.."),
    "U": ("#..#", "#..#", "#..#", "#..#", ".##."),
    "V": ("#...#", "#...#", ".#.#.", ".#.#.", "..#.."),
    "W": ("#...#", "#...#", "#.#.#", "##.##", "#...#"),
    "X": ("#..#", "#..#", ".##.", "#..#", "#..#"),
    "Y": ("#...#", ".#.#.", "..#..", "..#..", "..#.."),
    "Z": ("####", "...#", ".##.", "#...", "####"),
    "0": (".##.", "#..#", "#..#", "#..#", ".##."),
    "1": (".#.", "##.", ".#.", ".#.", "###"),
    "2": ("###.", "...#", ".##.", "#...", "####"),
    "3": ("###.", "...#", ".##.", "...#", "###."),
    "4": ("#..#", "#..#", "####", "...#", "...#"),
    "5": ("####", "#...", "###.", "...#", "###."),
    "6": (".##.", "#...", "###.", "#..#", ".##."),
    "7": ("####", "...#", "..#.", ".#..", ".#.."),
    "8": (".##.", "#..#", ".##.", "#..#", ".##."),
    "9": (".##.", "#..#", ".###", "...#", ".##."),
    "-": ("...", "...", "###", "...", "..."),
    "·": (".", ".", "#", ".", "."),
    " ": ("..", "..", "..", "..", ".."),
}
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def _pixels(text: str) -> list[str]:
    rows = [""] * 5
    for char in text.upper():
        glyph = _FONT.get(char)
        if glyph is None:
            raise KeyError(char)
        rows = [f"{row}{line}." for row, line in zip(rows, glyph, strict=True)]
    return [row[:-1] for row in rows]


def _small(rows: list[str]) -> list[str]:
    lines = []
    for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=""):
        low = lower.ljust(len(upper), ".")
        lines.append("".join(_HALVES[a == "#", b == "#"] for a, b in zip(upper, low, strict=True)))
    return lines


def _large(rows: list[str]) -> list[str]:
    return [row.replace("#", "██").replace(".", "  ") for row in rows]


def banner(text: str, width: int, height: int) -> list[str]:
    """``text`` in the largest letters that fit, split at its dashes when that lets it grow.

    Returns lines of equal meaning: five-line double-width letters, three-line half-block letters, or the text
    itself with its letters spaced out.
    """
    try:
        whole = _pixels(text)
        halves = [_pixels(part) for part in _split(text)]
    except KeyError:
        return [text]
    stacked_large = [line for part in halves for line in (*_large(part), "")][:-1]
    stacked_small = [line for part in halves for line in (*_small(part), "")][:-1]
    for lines in (_large(whole), stacked_large, _small(whole), stacked_small):
        if max(map(cell_len, lines)) <= width and len(lines) <= height:
            return lines
    return [" ".join(text)] if 2 * len(text) <= width else [text]


def _split(text: str) -> list[str]:
    head, _, tail = text.rpartition("-")
    if not head:
        return [text]
    first, _, second = head.partition("-")
    return [first, second, tail] if second and len(first) + len(second) > 14 else [head, tail]
