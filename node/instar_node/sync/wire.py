"""What machines say to each other about the state.

Commits and objects prove themselves by hash and signature; sizes are bounded, and whoever lacks more asks
again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.sync.changes import ChangeSet

Oid = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z")]
MAX_ASKED = 512
"""Objects asked for at once."""
MAX_PAGE_BYTES = 4 * 1024 * 1024
"""An answer stops at this size (of the objects unpacked), but holds at least one object."""
MAX_PAGE_COMMITS = 512
MAX_SETS = 64
"""Change sets offered at once."""


class StateNews(msgspec.Struct, frozen=True, tag="state.news"):
    """One-way: my newest verified commit that is not to be lost any more (pushed, where there is a hub)."""

    head: Oid | None


class AskTip(msgspec.Struct, frozen=True, tag="state.ask-tip"):
    """Say how far you are."""


class Tip(msgspec.Struct, frozen=True, tag="state.tip"):
    """``head`` is the newest verified commit here, ``published`` the newest that is not to be lost."""

    head: Oid | None
    published: Oid | None


class AskCommits(msgspec.Struct, frozen=True, tag="state.ask-commits"):
    """Give me the commits from ``tip`` back to, and without, any that I ``have``."""

    tip: Oid
    have: Annotated[tuple[Oid, ...], Meta(max_length=64)]


class Commits(msgspec.Struct, frozen=True, tag="state.commits"):
    """Raw commits, newest first; ``more`` says that older ones are to be asked for."""

    commits: Annotated[tuple[bytes, ...], Meta(max_length=MAX_PAGE_COMMITS)]
    more: bool


class AskObjects(msgspec.Struct, frozen=True, tag="state.ask-objects"):
    """Give me these objects, or the first of them."""

    oids: Annotated[tuple[Oid, ...], Meta(min_length=1, max_length=MAX_ASKED)]


class Object(msgspec.Struct, frozen=True, array_like=True):
    """A tree or a blob; ``packed`` is zlib."""

    kind: Annotated[str, Meta(pattern=r"^(tree|blob)\Z")]
    size: Annotated[int, Meta(ge=0)]
    packed: bytes


class Objects(msgspec.Struct, frozen=True, tag="state.objects"):
    """The first of what was asked for, in that order."""

    objects: Annotated[tuple[Object, ...], Meta(max_length=MAX_ASKED)]


class OfferChanges(msgspec.Struct, frozen=True, tag="state.offer-changes"):
    """To the holder: take these edits of mine in, in order. It asks me for contents it lacks."""

    queue_id: Annotated[str, Meta(max_length=64)]
    changes: Annotated[tuple[ChangeSet, ...], Meta(min_length=1, max_length=MAX_SETS)]


class ChangesTaken(msgspec.Struct, frozen=True, tag="state.changes-taken"):
    """All up to this number are in my repository. They are surely in when they show up in my news."""

    through: int
