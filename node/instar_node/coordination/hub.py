"""Where the lease register lies, read from what a person wrote in ``hub.url`` or on the command line."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from instar_node.coordination.hub_troubles import hub_error, not_a_repository
from instar_node.errors import InstarError
from instar_node.storage.home import Home


class Hub(msgspec.Struct, frozen=True):
    """The place of the register.

    ``embedded``: this home's own repository, which only this machine writes; nobody contends.
    ``path``: a bare repository on a disk that all machines see. ``remote``: any git URL.
    ``witness``: a paired machine that keeps the register for the others. ``etcd``: a key of an etcd.
    """

    kind: Literal["embedded", "path", "remote", "witness", "etcd"]
    url: str
    """An absolute path for ``embedded`` and ``path``, the URL as given for the others."""

    @property
    def witness(self) -> str:
        """Who a ``witness`` hub is: a machine id, or a nickname as a person wrote it."""
        return self.url.removeprefix(WITNESS)

    @property
    def wire_url(self) -> str:
        """The URL as records and other machines carry it: empty for everybody's own disk."""
        return "" if self.kind == "embedded" else self.url

    @property
    def shown(self) -> str:
        """The URL without a password, for messages and logs."""
        return without_password(self.url)


EMBEDDED = "embedded"
"""How a person writes the embedded hub where something must be written."""
WITNESS = "witness:"
ETCD_SCHEMES = ("etcd", "etcds")
REMOTE_SCHEMES = ("ssh", "https", "http", "git", "git+ssh", "ssh+git")
_SCP_LIKE = re.compile(r"(?:[\w.+-]+@)?[A-Za-z0-9][\w.-]+:[^\s:/\\-][^\s]*\Z|[\w.+-]+@[\w.-]+:/[^\s]+\Z")
_PASSWORD = re.compile(r"(://[^/@:\s]*):[^/@\s]*@")

_SYNCED_NAMES = {
    "dropbox": "Dropbox",
    "onedrive": "OneDrive",
    "google drive": "Google Drive",
    "googledrive": "Google Drive",
    "my drive": "Google Drive",
    "icloud drive": "iCloud Drive",
    "mobile documents": "iCloud Drive",
    "com~apple~clouddocs": "iCloud Drive",
    "cloudstorage": "a cloud drive",
    "nextcloud": "Nextcloud",
}
_SYNCED_MARKERS = {".stfolder": "Syncthing", ".dropbox": "Dropbox"}


def parse_hub(url: str, home: Home) -> Hub:
    """Read a hub as a person writes it; nothing is contacted, and only the place itself is looked at.

    Empty, ``embedded``, or the home's own ``hub.git``, is the embedded hub. A path that does not exist yet is
    accepted: its disk may be away.

    Raises:
        InstarError: ``bad-hub`` (none of the forms there are), ``hub-synced`` (a folder that a sync program
            copies), ``hub-not-repository``.
    """
    hub = read_hub(url, home)
    if hub.kind == "path":
        with suppress(PermissionError):  # whoever uses it says so
            _look_at(Path(hub.url))
    return hub


def _look_at(path: Path) -> None:
    refuse_synced(path)
    if not may_become_repository(path) and not is_bare_repository(path):
        raise hub_error(not_a_repository(path), status=400)


def read_hub(url: str, home: Home) -> Hub:
    """As ``parse_hub``, without looking at the place: only ``bad-hub`` is raised."""
    text = url.strip()
    if text in ("", EMBEDDED):
        return Hub("embedded", str(home.hub.absolute()))
    if any(ord(char) < 32 for char in text) or text.startswith("-"):
        raise _bad_hub(text)
    if text.startswith(WITNESS) and len(text) > len(WITNESS):
        return Hub("witness", text)
    if _is_etcd(text):
        return Hub("etcd", text.rstrip("/"))
    if _is_remote(text):
        return Hub("remote", text)
    path = _local_path(text)
    if path.resolve() == home.hub.resolve():
        return Hub("embedded", str(home.hub.absolute()))
    return Hub("path", str(path))


def is_bare_repository(path: Path) -> bool:
    """Whether a bare git repository lies at ``path``."""
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def may_become_repository(path: Path) -> bool:
    """Whether nothing lies at ``path``, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def refuse_synced(path: Path) -> None:
    """Raise ``InstarError("hub-synced")`` if a sync program copies ``path`` behind our back.

    Such a program resolves two writes by keeping one or both, which is the opposite of compare-and-swap.
    """
    for folder in (path, *path.parents):
        service = _sync_service(folder)
        if service:
            raise InstarError(
                "hub-synced",
                f"{path} lies in a folder that {service} synchronises; two machines could both win there",
                "use a git URL, or a repository on a disk that all machines mount",
                status=400,
            )


def without_password(text: str) -> str:
    """``text`` with the passwords of URLs in it struck out."""
    return _PASSWORD.sub(r"\1:…@", text)


def _split(text: str) -> SplitResult:
    """The parts of a URL. Raises ``bad-hub`` for one that cannot be taken apart (``https://[::1``)."""
    try:
        return urlsplit(text)
    except ValueError as error:
        raise _bad_hub(text) from error


def _is_etcd(text: str) -> bool:
    parts = _split(text)
    if parts.scheme not in ETCD_SCHEMES:
        return False
    try:
        sound = bool(parts.hostname) and parts.port is not None
    except ValueError:  # a port that is no number
        sound = False
    if not sound or " " in text or parts.query or parts.fragment:
        raise _bad_hub(text)
    return True


def _is_remote(text: str) -> bool:
    scheme, separator, _ = text.partition("://")
    if separator:
        if scheme.lower() == "file":
            return False
        if scheme.lower() not in REMOTE_SCHEMES or not _split(text).netloc or " " in text:
            raise _bad_hub(text)
        return True
    if "::" in text:  # git's "ext::…" and other transport helpers run programs
        raise _bad_hub(text)
    return _SCP_LIKE.match(text) is not None


def _local_path(text: str) -> Path:
    if text.lower().startswith("file://"):
        parts = _split(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise _bad_hub(text)
        return Path(unquote(parts.path))
    if not text.startswith(("/", "~", "./", "../")):
        raise _bad_hub(text)
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # "~nobody" of an account that does not exist
        raise _bad_hub(text) from error


def _sync_service(folder: Path) -> str:
    name = folder.name.lower()
    for known, service in _SYNCED_NAMES.items():
        if name == known or name.startswith((f"{known} -", f"{known} (")):
            return service
    for marker, service in _SYNCED_MARKERS.items():
        if (folder / marker).exists():
            return service
    return ""


def _bad_hub(text: str) -> InstarError:
    return InstarError(
        "bad-hub",
        f"{without_password(text)!r} is neither the path of a repository nor a git URL",
        "such as /mnt/shared/hub.git, git@example.org:me/hub.git, https://example.org/me/hub.git, "
        "witness:MACHINE or etcd://host:2379",
        status=400,
    )
