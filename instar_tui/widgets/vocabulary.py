"""Glyph, word and colour of every status, in one place; a colour never stands alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from instar_node.api.types import Machine


class Mark(NamedTuple):
    """How a status is shown."""

    glyph: str
    word: str
    style: str


ROLES = {
    "awake": Mark("◆", "AWAKE", "bold $awake"),
    "standby": Mark("●", "standby", "$standby"),
    "witness": Mark("◈", "witness", "$standby"),
    "removed": Mark("✕", "removed", "$danger"),
}
UNKNOWN = Mark("◌", "starting", "$muted")

STATUSES = {
    "offline": Mark("○", "offline", "$muted"),
    "benched": Mark("◇", "benched", "$needs-you"),
    "catching-up": Mark("◐", "catching up", "$needs-you"),
    "held-back": Mark("◑", "held back", "$needs-you"),
    "joining": Mark("◌", "joining", "$needs-you"),
    "removed": Mark("✕", "removed", "$danger"),
}

LEASES = {
    "held": Mark("◆", "held", "bold $awake"),
    "observed": Mark("●", "observed", "$standby"),
    "expired": Mark("◌", "expired", "bold $needs-you"),
    "released": Mark("○", "released", "$needs-you"),
    "closed": Mark("○", "passed on", "$needs-you"),
    "split-brain": Mark("‼", "SPLIT BRAIN", "bold $danger"),
    "none": Mark("○", "nobody", "$needs-you"),
}

DELIVERY = {
    "received": Mark("○", "received", "$muted"),
    "processing": Mark("◐", "answering", "$standby"),
    "waiting": Mark("▸", "waiting for you", "bold $needs-you"),
    "reserved": Mark("◑", "sending", "$standby"),
    "committed": Mark("✔", "answered", "$awake"),
    "cursor_advanced": Mark("✔", "answered", "$awake"),
    "abandoned": Mark("✕", "abandoned", "bold $danger"),
    "rejected": Mark("✕", "rejected", "$danger"),
    "undecided": Mark("?", "undecided", "bold $needs-you"),
}

HEALTH = {
    "ok": Mark("✔", "all is well", "$awake"),
    "degraded": Mark("⚠", "works, with a flaw", "$needs-you"),
    "alarm": Mark("‼", "alarm", "$danger"),
}

FINDINGS = {
    "ok": Mark("✔", "well", "$awake"),
    "warning": Mark("⚠", "warning", "bold $needs-you"),
    "problem": Mark("✕", "problem", "bold $danger"),
}

GATES = {
    "open": Mark("✔", "open", "$awake"),
    "unverified": Mark("◌", "not tried yet", "$muted"),
    "overridden": Mark("◑", "by hand", "$needs-you"),
    "shut": Mark("✕", "shut", "bold $danger"),
}

SYNC = {
    "empty": Mark("○", "nothing shared yet", "$muted"),
    "in-sync": Mark("✔", "in step", "$awake"),
    "queued": Mark("◐", "changes wait here", "bold $needs-you"),
    "unpushed": Mark("◐", "not pushed yet", "bold $needs-you"),
    "behind": Mark("◑", "behind", "bold $needs-you"),
}

KINDS = {
    "lease": "$awake",
    "handoff": "$awake",
    "wakeup": "$awake",
    "transfer": "$standby",
    "pair": "$needs-you",
    "alert": "$danger",
    "drill": "$standby",
    "update": "$standby",
    "sync": "$standby",
    "gap": "$danger",
}


def machine_mark(machine: Machine) -> Mark:
    """The one mark of a machine: what keeps it from serving comes before its role."""
    if machine.role == "awake":
        return ROLES["awake"]
    return STATUSES.get(machine.status) or ROLES.get(machine.role, UNKNOWN)


def delivery_mark(state: str) -> Mark:
    """The mark of a delivery state; an unknown one is shown by its own name."""
    return DELIVERY.get(state) or Mark("·", state, "$muted")


def step_words(step: str) -> str:
    """A step's name for people: ``tail_synced`` is ``tail synced``."""
    return step.replace("_", " ")


def kind_style(kind: str) -> str:
    """The style of an event's kind."""
    return KINDS.get(kind, "$muted")
