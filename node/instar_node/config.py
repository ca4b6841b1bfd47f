"""Settings of a home: ``config.toml``, typed and validated before anything starts."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]


class NodeSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[node]``: how this machine presents itself and where peers reach it."""

    nickname: Annotated[str, Meta(max_length=40)] = ""
    listen: Annotated[str, Meta(max_length=255)] = "127.0.0.1:7707"
    urls: tuple[str, ...] = ()
    witness: bool = False


class HubSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[hub]``: where the lease register lies. Empty = embedded in this home (``<home>/hub.git``)."""

    url: str = ""


class LeaseSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[lease]``: times of the lease, ms; ``drift`` is the assumed clock-rate error (0.01 = 1 %)."""

    ttl_ms: Annotated[int, Meta(ge=100)] = 6_000
    round_ms: Annotated[int, Meta(ge=20)] = 2_000
    drift: Annotated[float, Meta(ge=0.001, le=0.2)] = 0.01
    bench_ttl_ms: Annotated[int, Meta(ge=1_000)] = 120_000


class AgentSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[agent]``: who answers messages."""

    kind: Literal["manual", "command", "echo"] = "manual"
    command: tuple[str, ...] = ()
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 300.0
    history: Annotated[int, Meta(ge=0, le=10_000)] = 50
    env_secrets: tuple[str, ...] = ()
    max_output_bytes: Positive = 262_144


class WebhookSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[channels.webhook]``: every reply is also POSTed to ``url``."""

    url: str = ""
    secret: str = ""
    idempotent: bool = True
    undecided: Literal["hold", "resend"] = "hold"


class ChannelSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[channels.*]``."""

    webhook: WebhookSettings = WebhookSettings()


class PoolSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[pool]``."""

    enabled: bool = True


class LiveTailSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[livetail]``."""

    max_bytes_per_topic: Annotated[int, Meta(ge=1_024)] = 262_144
    redact: bool = True


class UiSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[ui]``: theme name and key remapping (action id -> key)."""

    theme: str = ""
    keymap: dict[str, str] = {}


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole of ``config.toml``."""

    node: NodeSettings = NodeSettings()
    hub: HubSettings = HubSettings()
    lease: LeaseSettings = LeaseSettings()
    agent: AgentSettings = AgentSettings()
    channels: ChannelSettings = ChannelSettings()
    pool: PoolSettings = PoolSettings()
    livetail: LiveTailSettings = LiveTailSettings()
    ui: UiSettings = UiSettings()
