"""The channels that ``[channels.*]`` asks for."""

from __future__ import annotations

from collections.abc import Callable

from instar_node.clock import Clock
from instar_node.config import ChannelSettings
from instar_node.delivery.channels.local import LocalChannel
from instar_node.delivery.contract import Channel, Publish


def build_channels(
    settings: ChannelSettings, secret: Callable[[str], str | None], clock: Clock, publish: Publish
) -> tuple[Channel, ...]:
    """The local channel, always, and those that are configured, in the order replies go out.

    ``secret`` reads the vault by name. A channel that is not configured is not even imported: a node should
    not spend its start-up on clients it does not need.
    """
    channels: list[Channel] = [LocalChannel()]
    if settings.webhook.url:
        from instar_node.delivery.channels.webhook import WebhookChannel

        channels.append(WebhookChannel(settings.webhook))
    if settings.telegram.token_secret:
        from instar_node.delivery.channels.telegram.channel import TelegramChannel

        channels.append(TelegramChannel(settings.telegram, secret, clock, publish))
    return tuple(channels)
