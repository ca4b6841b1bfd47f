"""What only the holder can know, told to the standbys: how far each copy of the conversation is behind."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from instar_node.clock import MICROS_PER_MS, Clock
from instar_node.contracts import Authority, Mesh
from instar_node.livetail.source import LiveTailSource, PeerLag

MAX_MACHINES = 1_000


class TailNews(msgspec.Struct, frozen=True, tag="api.tail-news"):
    """The holder to a standby: the copies of all machines."""

    epoch: int
    copies: Annotated[tuple[PeerLag, ...], Meta(max_length=MAX_MACHINES)]


class TailPicture:
    """How far every copy is behind, on the holder from its own feeds, on a standby from the holder's news."""

    def __init__(self, source: LiveTailSource, mesh: Mesh, authority: Authority, clock: Clock) -> None:
        self._source = source
        self._mesh = mesh
        self._authority = authority
        self._clock = clock
        self._heard: TailNews | None = None
        self._heard_at = 0
        self._told: dict[str, object] = {}
        mesh.on_notice(TailNews, self._on_news)
        mesh.on_peer(self._on_peer)

    async def copies(self, peers: tuple[str, ...]) -> list[PeerLag]:
        """The copies of these other machines; on a standby also its own, as far as the holder has told."""
        if self._authority.acting_epoch() is not None:
            return await self._source.lag(peers)
        if self._heard is None or self._heard.epoch != self._authority.epoch:
            return []
        since = (self._clock.now() - self._heard_at) // MICROS_PER_MS
        return [_aged(copy, since) for copy in self._heard.copies]

    async def tell(self, peers: tuple[str, ...]) -> bool:
        """As the holder: tell each connected standby what changed; ``True`` if anything did."""
        epoch = self._authority.acting_epoch()
        if epoch is None:
            self._told.clear()
            return False
        copies = tuple(await self._source.lag(peers))
        picture = (epoch, tuple((copy.machine_id, copy.entries, copy.head_seq) for copy in copies))
        behind = any(copy.entries for copy in copies)
        changed = False
        for peer in peers:
            if self._told.get(peer) == picture and not behind:
                continue
            if self._mesh.connected(peer) and self._mesh.send(peer, TailNews(epoch, copies)):
                changed = changed or self._told.get(peer) != picture
                self._told[peer] = picture
        return changed

    def _on_peer(self, peer: str, up: bool) -> None:
        self._told.pop(peer, None)

    def _on_news(self, sender: str, news: TailNews) -> None:
        if sender == self._authority.holder and news.epoch == self._authority.epoch:
            self._heard, self._heard_at = news, self._clock.now()


def _aged(copy: PeerLag, since_ms: int) -> PeerLag:
    """The copy as it is this much later, if nothing has happened since."""
    return msgspec.structs.replace(
        copy,
        ms=copy.ms + since_ms if copy.entries else 0,
        topics=tuple(msgspec.structs.replace(one, ms=one.ms + since_ms) for one in copy.topics),
        last_ack_ms=None if copy.last_ack_ms is None else copy.last_ack_ms + since_ms,
    )
