"""What can be wrong with a hub: one code and one wording each, and what a person can do about it.

A store says what it met (``StoreUnavailable``). Founding a mesh, joining one and moving one turn that into
the error that a person sees here, so that the same trouble reads the same wherever it is met.
"""

from __future__ import annotations

from pathlib import Path

from instar_node.coordination.lease_store import StoreUnavailable
from instar_node.errors import InstarError

HINTS = {
    "hub-unreachable": "check the address, the network, and that its server runs",
    "hub-missing": "mount its disk, correct the address, or make it there first: git init --bare hub.git",
    "hub-not-repository": "name an empty or new folder, or make a repository there: git init --bare hub.git",
    "hub-credentials": "push to it once by hand so that git remembers them, or add this account's ssh key "
    "there; on a disk, let this account read and write it",
    "hub-host-key": "connect to it once by ssh, and compare the key that it shows with the server's own",
    "hub-read-only": "give this account the right to push there (on a disk: to write), or name another hub",
    "hub-of-another-mesh": "name an empty repository, or one that does not exist yet; to become part of that "
    "mesh, `instar pair` there and `instar join` here",
    "hub-in-use": "name an empty repository, or one that does not exist yet",
    "hub-foreign": "see that the address leads to the hub of this mesh and the right disk is mounted; a new "
    "mesh wants an empty repository",
    "hub-blocked": "remove it there by hand: on the hub's disk or, a ref, by `git push HUB :REF`; then the "
    "awake machine of a running mesh writes the lease anew: `instar lease heal`",
    "hub-refuses": "see its hooks and protection rules: refs under refs/instar/ must be writable",
    "hub-not-atomic": "use another git host, or a repository on a disk that all machines mount and no "
    "program synchronises",
    "hub-not-etcd": "name an etcd as etcd://HOST:PORT, and a git repository as git itself takes it",
    "hub-busy": "try again in a moment",
    "git-missing": "install git",
}
"""For every code that a hub is refused with, what to do about it."""


def refusal(code: str, message: str, *, status: int = 502) -> InstarError:
    """The error of one trouble, as a person sees it."""
    return InstarError(code, message, HINTS[code], status=status)


def hub_error(trouble: StoreUnavailable, *, status: int = 502) -> InstarError:
    """What a store met, as the error that a person sees."""
    return refusal(trouble.code, trouble.message, status=status)


def told(trouble: StoreUnavailable) -> str:
    """What a store met and what to do about it, in one line for screens that show nothing else."""
    return f"{trouble.message}; {HINTS[trouble.code]}"


def not_a_repository(path: Path) -> StoreUnavailable:
    """A place on a disk that holds something else than a bare git repository."""
    what = "is a work tree, not" if (path / ".git").exists() else "holds something that is not"
    return StoreUnavailable(f"{path} {what} a bare git repository", "hub-not-repository")


def blocked(what: object, ref: str) -> StoreUnavailable:
    """Something lies below the name of a ref, so that the ref itself cannot be."""
    return StoreUnavailable(f"{what} lies in the place of {ref}, which cannot be written", "hub-blocked")


def closed(path: Path) -> StoreUnavailable:
    """A place on a disk that this account may not even look into."""
    return StoreUnavailable(f"{path} is closed to this account", "hub-credentials")


def not_writable(shown: object) -> StoreUnavailable:
    """A hub that this account may only read."""
    return StoreUnavailable(f"{shown} may be read but not written with this account", "hub-read-only")


def of_another_mesh(shown: str) -> InstarError:
    """A hub whose register no member of this mesh wrote."""
    return refusal("hub-of-another-mesh", f"{shown} keeps the lease of another mesh", status=409)


def another_hub(shown: str) -> StoreUnavailable:
    """An address that leads, from this machine, to another hub than from the others."""
    return StoreUnavailable(f"{shown} is another hub than the mesh uses", "hub-foreign")
