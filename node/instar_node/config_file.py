"""``config.toml`` as a file for people: the commented default, and edits that keep its comments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from instar_node.config import Config, KeyPath, closest_key, known_keys, load_config, parse_config
from instar_node.errors import InstarError, bad_input
from instar_node.storage.atomic import write_atomic

DEFAULT_TEXT = """\
# Settings of this machine. Every key is optional; the values shown are the defaults.
# `instar config set lease.ttl_ms 9000` changes a key here and checks it; it counts from the next start.

[node]
# nickname = ""                # how people call this machine; empty: the host's name
# listen = "127.0.0.1:7707"    # where other machines reach this node; "0.0.0.0:7707" for all interfaces
# urls = []                    # further addresses peers may use, such as ["https://desk.example.net"]
# witness = false              # keep the lease register for others, never run the agent
# keep_baton = false           # embedded hub: stay the awake machine when this program ends or restarts,
                               # instead of handing over to a standby that is in sync
# log_level = "info"           # what goes to logs/node.jsonl: "debug", "info", "warning" or "error"

[hub]
# url = ""                     # where the lease lies; empty: inside this home, without automatic failover.
                               # a path to a bare repository, any git URL, or etcd://host:port gives
                               # automatic failover. `instar hub URL` moves a mesh that lives already

[lease]
# ttl_ms = 6000                # how long a lease lasts without renewal
# round_ms = 2000              # how often it is renewed; at most a third of ttl_ms
# drift = 0.01                 # how far clocks may run apart (0.01 = 1 %); 0.001 to 0.2
# bench_ttl_ms = 120000        # how long an unreachable standby is left out; at least ten times ttl_ms

[agent]
# kind = "manual"              # "manual": a person answers; "command": a program does; "echo": for trying out
# preset = ""                  # with "command": "claude", "codex" or "gemini" knows how to ask that program
# command = []                 # the program and its arguments, such as ["claude", "-p"]
# timeout_s = 300.0            # a run that takes longer is stopped and tried again
# history = 50                 # earlier lines of the conversation given to the program
# env_secrets = []             # names of secrets given to the program as environment variables
# max_output_bytes = 262144    # a longer answer counts as a failure

[channels.webhook]
# url = ""                     # every reply is also POSTed here
# secret = ""                  # signs the body (HMAC-SHA256)
# idempotent = true            # the receiver drops a repeated Idempotency-Key
# undecided = "hold"           # for idempotent = false: "hold" a reply of unknown fate, or "resend" it

[channels.telegram]
# token_secret = ""            # a Telegram bot: the name of its token in the vault (`instar secret set NAME`)
# api_base = "https://api.telegram.org"
# allow_users = []             # numeric ids of users who may talk to the agent; nobody else is answered
# allow_chats = []             # ids of chats in which everybody may
# undecided = "hold"           # a reply cut off in mid-sending: "hold" it until you decide, or "resend" it

[ledger]
# keep_text_days = 365         # how long the texts of settled messages are kept; 0: for ever. That a message
                               # was answered is never forgotten (the live tail keeps what fits its size)

[pool]
# enabled = true               # let topics run on different machines
# slots = 0                    # commands this machine can run side by side; 0: twice the number of processors

[livetail]
# max_bytes_per_topic = 262144 # how much of each conversation a standby keeps ready
# redact = true                # blank out secrets before they leave this machine

[update]
# command = []                 # installs the new version before `instar update` restarts this node, such as
                               # ["pipx", "upgrade", "instar-tui"]; empty: restart into what is installed

[ui]
# theme = ""                   # empty: the default theme
# keymap = {}                  # action id = key, such as { transfer = "m" }
"""


def write_default_config(path: Path) -> bool:
    """Write the commented default file; an existing one is left alone (then ``False``)."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(DEFAULT_TEXT)
    except FileExistsError:
        return False
    return True


def parse_key(dotted: str) -> KeyPath:
    """``lease.ttl_ms`` as a path. Raises ``unknown-setting`` (404) with the nearest known one."""
    key = tuple(dotted.split("."))
    if key in known_keys() or (key[:-1] == ("ui", "keymap") and key[-1]):
        return key
    nearest = closest_key(key)
    hint = f"did you mean {'.'.join(nearest)}?" if nearest else "`instar config get` lists every setting"
    raise InstarError("unknown-setting", f"there is no setting {dotted!r}", hint, status=404)


def get_setting(config: Config, key: KeyPath) -> Any:
    """The value in force, defaults included, as plain data; ``None`` for a key remapping not made."""
    value: Any = msgspec.to_builtins(config)
    for part in key:
        value = value.get(part)
    return value


def set_setting(path: Path, key: KeyPath, text: str) -> Any:
    """Change one key of the file, comments kept, and return its value; an invalid change writes nothing.

    ``text`` is read as TOML (``9000``, ``true``, ``["a", "b"]``); what is not TOML is taken as a string.
    """
    import tomlkit
    from tomlkit.container import Container
    from tomlkit.items import Table

    load_config(path)  # a file that is already wrong is refused as it is, not blamed on this change
    write_default_config(path)
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    table: Container | Table = document
    for part in key[:-1]:
        if part not in table:
            table[part] = tomlkit.table()
        table = table[part]
    table[key[-1]] = _value(text, key)
    changed = tomlkit.dumps(document)
    try:
        content = changed.encode()
    except UnicodeEncodeError as error:  # typed in a terminal of another encoding
        raise bad_input(".".join(key), "holds bytes that are not text", "give it as UTF-8") from error
    config = parse_config(changed, path)
    write_atomic(path, content, path.stat().st_mode & 0o777)
    return get_setting(config, key)


def _value(text: str, key: KeyPath) -> Any:
    """The typed text; a setting that holds a string takes ``0123`` or ``true`` as they are typed."""
    import tomllib

    if isinstance(get_setting(Config(), key), str) or key[:-1] == ("ui", "keymap"):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
