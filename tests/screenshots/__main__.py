"""``python -m tests.screenshots``: draw every screen from a real running mesh into ``screenshots/``."""

from __future__ import annotations

from tests.screenshots.story import main

if __name__ == "__main__":
    main()
