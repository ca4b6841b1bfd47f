"""The data folder of one node, and where everything in it lies."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from instar_node.storage.private import private_dir, refuse_if_exposed


class Home(NamedTuple):
    """One node's folder. Two nodes never share one (see ``HomeLock``)."""

    path: Path

    @classmethod
    def default(cls) -> Home:
        """The folder the operating system has for this program's data."""
        import platformdirs

        return cls(Path(platformdirs.user_data_dir("instar", appauthor=False)))

    @property
    def config(self) -> Path:
        """Settings, commented, edited by people."""
        return self.path / "config.toml"

    @property
    def machine(self) -> Path:
        """Keys, registry and pairing session; mode 0700."""
        return self.path / "machine"

    @property
    def database(self) -> Path:
        """The SQLite database of messages, replicas and promises."""
        return self.path / "mesh.db"

    @property
    def hub(self) -> Path:
        """The embedded hub: a bare git repository."""
        return self.path / "hub.git"

    @property
    def register(self) -> Path:
        """The lease register a witness keeps for the others."""
        return self.path / "register"

    @property
    def state(self) -> Path:
        """Work tree of the agent's state."""
        return self.path / "state"

    @property
    def state_repository(self) -> Path:
        """The git repository of that work tree."""
        return self.path / "state.git"

    @property
    def api_token(self) -> Path:
        """Bearer token of the local API."""
        return self.path / "api.token"

    @property
    def api_json(self) -> Path:
        """Address and pid of the running node."""
        return self.path / "api.json"

    @property
    def lock(self) -> Path:
        """Locked by the running node; holds its pid."""
        return self.path / "node.lock"

    @property
    def unsent(self) -> Path:
        """What was typed in the control centre when an update restarted it."""
        return self.path / "unsent.json"

    @property
    def logs(self) -> Path:
        """Folder of the structured, rotating logs."""
        return self.path / "logs"

    def prepare(self) -> None:
        """Create the folders (0700) and refuse to go on if others can read ``machine/`` or a key in it.

        Raises ``InstarError``: ``home-unusable`` or ``exposed-file``, with the command that mends it.
        """
        for folder in (self.path, self.machine, self.logs):
            private_dir(folder)
        refuse_if_exposed(self.machine)
        for secret in (*self.machine.glob("*.key"), self.machine / "pairing-session.json", self.api_token):
            if secret.exists():
                refuse_if_exposed(secret)
