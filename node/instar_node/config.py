"""Settings of a home: ``config.toml``, typed and validated before anything starts.

Unknown keys and bad values are refused with file, line and a hint; nothing is guessed. ``config_file`` holds
the commented default file and the editing of it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from instar_node.build import Build
from instar_node.errors import InstarError

Positive = Annotated[int, Meta(ge=1)]
KeyPath = tuple[str, ...]
"""A setting by its place: ``("lease", "ttl_ms")``."""


class NodeSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[node]``: how this machine presents itself and where peers reach it."""

    nickname: Annotated[str, Meta(max_length=40)] = ""
    listen: Annotated[str, Meta(max_length=255)] = "127.0.0.1:7707"
    urls: tuple[str, ...] = ()
    witness: bool = False
    keep_baton: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"


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
    preset: Literal["", "claude", "codex", "gemini"] = ""
    """A common agent CLI, for kind ``command``; ``command`` then only names the program, if it is elsewhere
    or takes further arguments."""
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


class TelegramSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[channels.telegram]``: a bot of the Telegram Bot API; ``token_secret`` names its token in the vault.

    Who is in neither list is not answered.
    """

    token_secret: Annotated[str, Meta(max_length=64)] = ""
    api_base: Annotated[str, Meta(max_length=255)] = "https://api.telegram.org"
    allow_users: tuple[int, ...] = ()
    allow_chats: tuple[int, ...] = ()
    undecided: Literal["hold", "resend"] = "hold"


class ChannelSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[channels.*]``."""

    webhook: WebhookSettings = WebhookSettings()
    telegram: TelegramSettings = TelegramSettings()


class LedgerSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[ledger]``: the record of all messages. Texts go after ``keep_text_days`` (0 = never); keys stay."""

    keep_text_days: Annotated[int, Meta(ge=0, le=36_500)] = 365


class PoolSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[pool]``: ``slots`` is how many agents can run here side by side; 0 = twice the processors. Only an
    agent of kind ``command`` takes one up."""

    enabled: bool = True
    slots: Annotated[int, Meta(ge=0, le=10_000)] = 0


class LiveTailSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[livetail]``."""

    max_bytes_per_topic: Annotated[int, Meta(ge=1_024)] = 262_144
    redact: bool = True


class UiSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[ui]``: theme name and key remapping (action id -> key)."""

    theme: str = ""
    keymap: dict[str, str] = {}


class UpdateSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[update]``: ``command`` installs the new version of this program before a restart into it."""

    command: tuple[str, ...] = ()


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole of ``config.toml``."""

    node: NodeSettings = NodeSettings()
    hub: HubSettings = HubSettings()
    lease: LeaseSettings = LeaseSettings()
    agent: AgentSettings = AgentSettings()
    channels: ChannelSettings = ChannelSettings()
    ledger: LedgerSettings = LedgerSettings()
    pool: PoolSettings = PoolSettings()
    livetail: LiveTailSettings = LiveTailSettings()
    update: UpdateSettings = UpdateSettings()
    ui: UiSettings = UiSettings()


class NodeOptions(msgspec.Struct, frozen=True):
    """What the command line of one start says; ``None`` leaves the choice to ``config.toml``."""

    listen: str | None = None
    hub: str | None = None
    nickname: str | None = None
    witness: bool = False
    build: Build | None = None
    """Another program than the one that runs, for tests of upgrades."""
    restart: Callable[[], None] | None = None
    """Ends the node so that it is started anew; ``None`` when nobody would start it."""


# -- reading --------------------------------------------------------------------------------------------


def load_config(path: Path) -> Config:
    """Read and check ``config.toml``; a file that does not exist means all defaults.

    Raises:
        InstarError: ``bad-config`` naming file, line and key, with the nearest known key as the hint.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise InstarError("bad-config", f"{path} cannot be read: {error}", status=400) from error
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> Config:
    """The settings in ``text``; ``path`` only names the file in errors. Raises as ``load_config`` does."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InstarError(
            "bad-config",
            f"{path} is not valid TOML: {error}",
            "strings need quotes; one key = value a line",
            status=400,
        ) from error
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise _refusal(path, text, *_explain(str(error))) from error
    for key, message, hint in _conflicts(config):
        raise _refusal(path, text, key, message, hint)
    return config


def known_keys() -> tuple[KeyPath, ...]:
    """Every setting there is, in file order. ``ui.keymap`` counts as one; its entries are free."""
    return tuple(_keys_of(Config, ()))


def closest_key(key: KeyPath) -> KeyPath | None:
    """The known setting (or section) a mistyped one most resembles; ``None`` also for a section itself."""
    from difflib import get_close_matches

    known = known_keys()
    names = {".".join(known_key): known_key for known_key in known}
    names |= {".".join(known_key[:-1]): known_key[:-1] for known_key in known}
    asked = ".".join(key)
    if asked in names:
        return None
    candidates = [name for name in names if name.startswith(".".join(key[:-1]))] or list(names)
    found = get_close_matches(asked, candidates, n=1, cutoff=0.5)
    return names[found[0]] if found else None


def _keys_of(struct: type[msgspec.Struct], prefix: KeyPath) -> list[KeyPath]:
    keys: list[KeyPath] = []
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            keys += _keys_of(field.type, (*prefix, field.name))
        else:
            keys.append((*prefix, field.name))
    return keys


def _refusal(path: Path, text: str, key: KeyPath, message: str, hint: str) -> InstarError:
    line = line_of(text, key)
    where = f"{path}:{line}" if line else str(path)
    name = ".".join(key)
    extra: dict[str, Any] = {"file": str(path), "key": name}
    if line:
        extra["line"] = line
    return InstarError("bad-config", f"{where}: {name}: {message}", hint, status=400, extra=extra)


_AT = re.compile(r" - at `(?:key in )?\$([^`]*)`\Z")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")


def _explain(error: str) -> tuple[KeyPath, str, str]:
    """Turn a message of msgspec into (setting, what is wrong, hint)."""
    place = _AT.search(error)
    path = re.sub(r"\[[^\]]*\]", "", place.group(1)) if place else ""
    key = tuple(part for part in path.split(".") if part)
    unknown = _UNKNOWN.match(error)
    if unknown is None:
        return key, (error[: place.start()] if place else error).replace("`", ""), ""
    key = (*key, unknown.group(1))
    nearest = closest_key(key)
    hint = f"did you mean {'.'.join(nearest)}?" if nearest else "`instar config get` lists every setting"
    return key, "there is no such setting", hint


_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_.\-\"' ]+?)\s*=")


def line_of(text: str, key: KeyPath) -> int | None:
    """The line (from 1) that sets ``key``, else the one that opens its section, else ``None``."""
    section: KeyPath = ()
    opened: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = _parts(header.group(1))
            if section and section == key[: len(section)]:
                opened = number
        elif (assignment := _ASSIGNMENT.match(line)) is not None:
            here = (*section, *_parts(assignment.group(1)))
            if here == key[: len(here)]:
                return number
    return opened


def _parts(dotted: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


# -- settings that must agree ---------------------------------------------------------------------------


def _conflicts(config: Config) -> list[tuple[KeyPath, str, str]]:
    """Settings that are each well-formed and do not fit together: (setting, what is wrong, hint)."""
    return [*_lease_conflicts(config.lease), *_other_conflicts(config)]


def _lease_conflicts(lease: LeaseSettings) -> list[tuple[KeyPath, str, str]]:
    found: list[tuple[KeyPath, str, str]] = []
    if lease.round_ms * 3 > lease.ttl_ms:
        found.append(
            (
                ("lease", "round_ms"),
                f"{lease.round_ms} ms is more than a third of ttl_ms ({lease.ttl_ms} ms)",
                f"set round_ms to at most {lease.ttl_ms // 3}, or ttl_ms to at least {lease.round_ms * 3}",
            )
        )
    if lease.bench_ttl_ms < 10 * lease.ttl_ms:
        found.append(
            (
                ("lease", "bench_ttl_ms"),
                f"{lease.bench_ttl_ms} ms is less than ten times ttl_ms ({lease.ttl_ms} ms)",
                f"set bench_ttl_ms to at least {10 * lease.ttl_ms}",
            )
        )
    return found


def _other_conflicts(config: Config) -> list[tuple[KeyPath, str, str]]:
    found: list[tuple[KeyPath, str, str]] = []
    if not is_address(config.node.listen):
        found.append(
            (
                ("node", "listen"),
                f"{config.node.listen!r} is not HOST:PORT",
                'such as "127.0.0.1:7707", or "0.0.0.0:7707" to be reachable from other hosts',
            )
        )
    for url in config.node.urls:
        if not url.startswith(("http://", "https://")):
            found.append((("node", "urls"), f"{url!r} is not an http:// or https:// URL", ""))
    if config.agent.preset and config.agent.kind != "command":
        found.append((("agent", "preset"), 'a preset needs kind = "command"', 'set agent.kind to "command"'))
    if config.agent.kind == "command" and not config.agent.command and not config.agent.preset:
        found.append(
            (
                ("agent", "command"),
                'agent.kind is "command" and no command is given',
                'such as command = ["claude", "-p"]',
            )
        )
    webhook = config.channels.webhook
    if webhook.url and not webhook.url.startswith(("http://", "https://")):
        found.append(
            (("channels", "webhook", "url"), f"{webhook.url!r} is not an http:// or https:// URL", "")
        )
    if webhook.undecided == "resend" and webhook.idempotent:
        found.append(
            (
                ("channels", "webhook", "undecided"),
                '"resend" has no meaning while idempotent is true: an idempotent receiver is always retried',
                "set idempotent = false, or leave undecided out",
            )
        )
    telegram = config.channels.telegram
    if not telegram.api_base.startswith(("http://", "https://")):
        found.append(
            (
                ("channels", "telegram", "api_base"),
                f"{telegram.api_base!r} is not an http:// or https:// URL",
                "leave it out to use Telegram's own",
            )
        )
    return found


def is_address(text: str) -> bool:
    """Whether ``text`` is ``HOST:PORT`` (an IPv6 host in brackets); port 0 lets the system choose."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = host != "" and not any(char in host for char in ":[]/ ")
    return (
        bool(colon)
        and (bracketed or plain)
        and re.fullmatch(r"[0-9]{1,5}", port) is not None
        and int(port) < 65_536
    )
