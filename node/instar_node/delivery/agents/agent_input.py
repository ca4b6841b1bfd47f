"""What a ``command`` agent reads: one JSON object on stdin."""

from __future__ import annotations

import msgspec

from instar_node.contracts import HistoryItem, Provenance, RunRequest
from instar_node.delivery.rows import public_key


class Question(msgspec.Struct, frozen=True):
    """``message`` of the object on stdin."""

    key: str
    text: str
    sender: str
    at: str


class AgentInput(msgspec.Struct, frozen=True):
    """The JSON object on the agent's stdin; the field names are a contract with agent programs."""

    topic: str
    message: Question
    history: tuple[HistoryItem, ...]
    provenance: Provenance


def encode_input(request: RunRequest) -> bytes:
    """What the agent reads on stdin for this request."""
    question = Question(public_key(request.key), request.text, request.sender, request.at)
    provenance = request.provenance
    if provenance.previous_machine == provenance.machine:
        provenance = msgspec.structs.replace(provenance, previous_machine=None)
    return msgspec.json.encode(AgentInput(request.topic, question, request.history, provenance))
