"""``python -m instar_tui`` is ``instar-tui``."""

from instar_tui.cli import main_tui

if __name__ == "__main__":
    main_tui()
