"""The channels that ``[channels.*]`` asks for."""

from __future__ import annotations

from instar_node.config import ChannelSettings
from instar_node.delivery.channels.local import LocalChannel
from instar_node.delivery.contract import Channel


def build_channels(settings: ChannelSettings) -> tuple[Channel, ...]:
    """The local channel, always, and those that are configured, in the order replies go out."""
    if not settings.webhook.url:
        return (LocalChannel(),)
    # Only now: a node without a webhook should not spend its start-up on an HTTP client.
    from instar_node.delivery.channels.webhook import WebhookChannel

    return (LocalChannel(), WebhookChannel(settings.webhook))
