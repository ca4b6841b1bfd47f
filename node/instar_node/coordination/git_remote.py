"""Compare-and-swap of one ref of a remote repository, by the git program over any of its transports.

``git push --force-with-lease=<ref>:<expected>`` is exact everywhere: git refuses when the advertised value
differs, and the server compares the advertised value again under its own lock.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from instar_node.coordination.git_command import GitResult, run_git
from instar_node.coordination.git_refs import in_thread
from instar_node.coordination.git_repository import LeaseRepository
from instar_node.coordination.hub_troubles import blocked, not_writable
from instar_node.coordination.lease_store import RefusedSwap, StoreUnavailable

_FETCH_TRIES = 3


class RemoteRefs:
    """The refs of one git URL, with a bare repository here for the objects.

    Args:
        cache: Made when it is missing; holds objects only, no refs, so several calls may run at once.
        shown: The URL as messages may show it.
        within: Seconds one command may take.
    """

    def __init__(self, url: str, shown: str, cache: LeaseRepository, within: float) -> None:
        self.objects = cache
        self._url = url
        self._shown = shown
        self._within = within

    async def tip(self, ref: str, have: str | None) -> str | None:
        """As ``Refs.tip``. A value that moves on while it is fetched is looked up again; one that stays, and
        of which a fetch brings nothing (git never sends the empty tree), is no lease."""
        not_sent = ""
        for _ in range(_FETCH_TRIES):
            version = await self._advertised(ref)
            if version is None or await asyncio.to_thread(self.objects.holds, version):
                return version
            if version == not_sent:
                message = f"{self._shown} shows at {ref} the value {version[:12]}, which is not a commit"
                raise StoreUnavailable(message, "hub-foreign", version)
            fetched = await self._fetch(ref, have)
            if await asyncio.to_thread(self.objects.holds, version):
                return version
            not_sent = version if fetched.code == 0 else ""
        failed = self._unavailable(fetched)
        raise StoreUnavailable(failed.message, failed.code, version)

    async def swap(self, ref: str, expected: str | None, new: str, hooks: Path | None = None) -> None:
        """As ``Refs.swap``; a ``pre-push`` hook in ``hooks`` runs after the ref is read, before it is set."""
        await self._push(ref, expected, new, hooks)

    async def remove(self, ref: str, expected: str) -> None:
        await self._push(ref, expected, "", None)

    async def scratch(self) -> str:
        return await in_thread(self.objects.build_scratch, self._within)

    async def _push(self, ref: str, expected: str | None, new: str, hooks: Path | None) -> None:
        result = await run_git(
            self.objects.path,
            *(("-c", f"core.hooksPath={hooks}") if hooks else ()),
            "push",
            *(() if hooks else ("--no-verify",)),
            "--porcelain",
            "--no-follow-tags",
            "--no-signed",
            "--recurse-submodules=no",
            f"--force-with-lease={ref}:{expected or ''}",
            "--",
            self._url,
            f"{new}:{ref}",
            within=self._within,
        )
        status = _push_status(result.output, ref)
        if status is None:
            raise self._unavailable(result)
        flag, summary = status
        if flag == "!" and any(sign in result.errors.lower() for sign in _NO_WRITING):
            raise self._unavailable(result)
        if flag == "!":
            raise RefusedSwap(summary)

    async def _advertised(self, ref: str) -> str | None:
        result = await run_git(
            self.objects.path,
            *("ls-remote", "--quiet", "--", self._url, ref, f"{ref}/*"),
            within=self._within,
        )
        if result.code != 0:
            raise self._unavailable(result)
        for line in result.output.splitlines():
            version, _, name = line.partition("\t")
            if name == ref:
                return version
            if name.startswith(f"{ref}/"):
                raise blocked(f"{name} of {self._shown}", ref)
        return None

    async def _fetch(self, ref: str, have: str | None) -> GitResult:
        """Fetch the objects of ``ref``; that may fail because the ref moved on, so the caller looks again."""
        return await run_git(
            self.objects.path,
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--recurse-submodules=no",
            *((f"--negotiation-tip={have}",) if have else ()),
            "--",
            self._url,
            ref,
            within=self._within,
        )

    def _unavailable(self, result: GitResult) -> StoreUnavailable:
        return explain_failure(result.errors, self._shown)


def _push_status(output: str, ref: str) -> tuple[str, str] | None:
    """``(flag, summary)`` of our ref in ``git push --porcelain``; ``None`` if nothing was reported of it."""
    for line in output.splitlines():
        flag, _, rest = line.partition("\t")
        names, _, summary = rest.partition("\t")
        if len(flag) == 1 and names.rpartition(":")[2] == ref:
            return flag, summary
    return None


_NO_WRITING = ("unable to create temporary object", "insufficient permission", "read-only file system")
"""What git on a server says when it may read a repository and not write it."""

_READ_ONLY = (
    *_NO_WRITING,
    *("write access", "read-only", "read only", "not allowed to push", "permission to", "error: 403"),
)
_REASONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "hub-credentials",
        "{hub} wants credentials that git has not got",
        (
            "permission denied (",
            "authentication failed",
            "could not read username",
            "could not read password",
            "terminal prompts disabled",
            "invalid username",
        ),
    ),
    (
        "hub-host-key",
        "the host key of {hub} is not known or has changed",
        ("host key verification failed",),
    ),
    (
        "hub-refuses",
        "{hub} belongs to another account of its server, and git there does not serve it",
        ("dubious ownership",),
    ),
    (
        "hub-not-repository",
        "there is no git repository at {hub}",
        (
            "does not appear to be a git repository",
            "not a git repository",
            "is this a git repository",
        ),
    ),
    (
        "hub-missing",
        "there is no repository at {hub}, or this account may not see it",
        ("repository not found", "not found", "does not exist"),
    ),
)
"""Code, message, and what git says then. A plain ssh server says the same of a path where nothing lies and of
one that holds something else, so that message covers both."""


def explain_failure(errors: str, hub: str) -> StoreUnavailable:
    """What git's stderr means, for people; its own last words when it is none of the usual."""
    text = errors.lower()
    if any(sign in text for sign in _READ_ONLY):
        return not_writable(hub)
    for code, message, signs in _REASONS:
        if any(sign in text for sign in signs):
            return StoreUnavailable(message.format(hub=hub), code)
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:", "remote:"))] or lines
    return StoreUnavailable(f"{hub} cannot be reached: {fatal[0] if fatal else 'git gave no reason'}")
