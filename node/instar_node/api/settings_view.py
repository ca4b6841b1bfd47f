"""Settings through the API: what ``instar config`` shows and changes."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from instar_node.api import types as t
from instar_node.config import Config, load_config
from instar_node.config_file import parse_key, set_setting
from instar_node.storage.home import Home

HIDDEN = "•••"
SECRETS = (("channels", "webhook", "secret"),)
"""Settings that are shown only to who asks for them by name, on the machine itself."""


def config_view(home: Home) -> t.ConfigView:
    """Every setting as the file has it now. Raises ``bad-config``."""
    settings: dict[str, Any] = msgspec.to_builtins(load_config(home.config))
    for *parents, last in SECRETS:
        table = settings
        for part in parents:
            table = table[part]
        if table[last]:
            table[last] = HIDDEN
    return t.ConfigView(str(home.config), settings)


def change_config(home: Home, body: t.ConfigChange) -> t.ConfigChanged:
    """Change one setting in the file, comments kept. The log level counts at once, all else at next start.

    Raises ``unknown-setting``, or ``bad-config`` for a value that is refused; nothing is written then.
    """
    key = parse_key(body.key)
    text = body.value if isinstance(body.value, str) else msgspec.json.encode(body.value).decode()
    value = set_setting(home.config, key, text)
    at_once = key == ("node", "log_level")
    if at_once:
        apply_log_level(load_config(home.config))
    return t.ConfigChanged(body.key, value, at_once)


def apply_log_level(config: Config) -> None:
    """Let the node's log follow the setting."""
    logging.getLogger("instar").setLevel(config.node.log_level.upper())
