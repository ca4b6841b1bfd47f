"""What a person should know of the channel: what is wrong now, and who was turned away."""

from __future__ import annotations

from collections import OrderedDict

from instar_node.delivery.channels.telegram.messages import NAME, Stranger
from instar_node.delivery.contract import ChannelTrouble, Publish

STRANGERS_KEPT = 20
"""How many senders are remembered, the most recent ones."""


class TroubleBoard:
    """Troubles by code, each told once when it begins; and the senders that are on no list."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._troubles: dict[str, ChannelTrouble] = {}
        self._strangers: OrderedDict[Stranger, int] = OrderedDict()

    def note(self, code: str, text: str, hint: str = "") -> None:
        """Something is wrong until ``settle``."""
        known = self._troubles.get(code)
        self._troubles[code] = ChannelTrouble(code, f"{NAME}: {text}", hint)
        if known is None:
            self._publish("channel", f"{NAME}: {text}", channel=NAME, code=code)

    def settle(self, *codes: str) -> None:
        """These are over."""
        for code in codes:
            if self._troubles.pop(code, None) is not None:
                self._publish("channel", f"{NAME}: works again ({code})", channel=NAME, code=code)

    def stranger(self, stranger: Stranger) -> None:
        """Somebody who may not talk to the agent did; told once for each, counted ever after."""
        count = self._strangers.pop(stranger, 0) + 1
        self._strangers[stranger] = count
        if count == 1:
            text = (
                f"{NAME}: {stranger.shown} in chat {stranger.chat} is on no allow-list and was not answered"
            )
            self._publish("channel", text, channel=NAME, code="unknown-sender", chat=stranger.chat)
        while len(self._strangers) > STRANGERS_KEPT:
            self._strangers.popitem(last=False)

    def skipped(self, reason: str) -> None:
        """An update was passed over."""
        self._publish("channel", f"{NAME}: an update was passed over: {reason}", channel=NAME, code="skipped")

    def troubles(self) -> tuple[ChannelTrouble, ...]:
        """What is wrong now; then who was turned away."""
        strangers = (
            ChannelTrouble(
                "unknown-sender",
                f"{NAME}: {who.shown} in chat {who.chat} is on no allow-list; not answered: {count}",
                "to let them in, add the user's id to allow_users or the chat's to allow_chats in"
                " [channels.telegram], and restart",
            )
            for who, count in self._strangers.items()
        )
        return (*self._troubles.values(), *strangers)
