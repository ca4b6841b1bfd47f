"""``python -m tests.readme_keys``: write the key table of the README anew from the table of actions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from instar_tui.actions import ACTIONS, EVERYWHERE, PLACES

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- keys: python -m tests.readme_keys -->\n", "<!-- end of keys -->\n"


def table() -> str:
    """The actions as Markdown: key, where, what, the same in a shell, the id to remap it by."""
    titles = {place.name: place.title for place in PLACES}

    def rows() -> Iterator[str]:
        yield "| key | on | what it does | the same in a shell | id |"
        yield "|---|---|---|---|---|"
        for action in ACTIONS:
            where = "every screen" if action.scope == EVERYWHERE else titles[action.scope]
            where = ", ".join([where, *(titles[name] for name in action.also if action.scope != EVERYWHERE)])
            shell = f"`{action.cli}`".replace("|", r"\|") if action.cli else ""  # else it would end the cell
            yield f"| `{action.shown_key}` | {where} | {action.tooltip} | {shell} | `{action.id}` |"

    return "\n".join(rows()) + "\n"


def with_table(readme: str) -> str:
    """The README with the table as it is now. Raises ``ValueError`` when its marks are missing."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
