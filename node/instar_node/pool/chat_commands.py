"""Moving a topic from inside the conversation: ``/move desk``, "run this on the mini"."""

from __future__ import annotations

from collections.abc import Iterable

from instar_node.contracts import AgentRunner, RunRequest, RunResult
from instar_node.errors import InstarError
from instar_node.pool.nicknames import HERE, Command, NicknameCommand
from instar_node.pool.transfer_report import TransferRequest, TransferResult
from instar_node.pool.transfers import Transfers


class ChatCommands:
    """An agent runner in front of the router: answers commands itself, passes everything else on.

    A command is a message like any other, and its answer goes out once; only that it does not wait for the
    messages before it: one of them may wait for the very machine that the topic is to leave. Carried out
    twice after a crash, the second time finds the topic already there.
    """

    def __init__(self, inner: AgentRunner, recogniser: NicknameCommand, transfers: Transfers) -> None:
        self._inner = inner
        self._recogniser = recogniser
        self._transfers = transfers
        self._asked: dict[str, str] = {}

    async def run(self, request: RunRequest) -> RunResult:
        command = self._recogniser.recognise(request.text)
        if command is None:
            return await self._inner.run(request)
        try:
            return RunResult("ok", (await self._obey(request, command),))
        except InstarError as error:
            if error.code == "not-awake":
                return RunResult("cancelled")
            return RunResult("ok", (self._excuse(request.topic, command, error),))

    def needs_history(self, topic: str) -> bool:
        return self._inner.needs_history(topic)

    def acts(self, topic: str) -> bool:
        return self._inner.acts(topic)

    def cancel(self, key: str) -> bool:
        return self._inner.cancel(key)

    def running(self, topic: str | None = None) -> Iterable[str]:
        return self._inner.running(topic)

    async def _obey(self, request: RunRequest, command: Command) -> str:
        topic = request.topic
        if command.kind == "unpin":
            description = await self._transfers.unpin(topic)
            return f"Unpinned; runs on {description.owner_nickname or 'whichever machine is awake'}."
        confirm = self._asked.pop(topic, None) if command.confirmed else None
        # "here" is where the person is, not where the awake machine happens to be.
        to = request.via if command.name.casefold() == HERE and request.via else command.name
        wish = TransferRequest(topic, to, confirm, undo=command.kind == "undo")
        return _told(await self._transfers.transfer(wish))

    def _excuse(self, topic: str, command: Command, error: InstarError) -> str:
        token = error.extra.get("confirm")
        if isinstance(token, str) and command.kind == "move":
            self._asked[topic] = token
            return f"{error.message} Say: /move {command.name} yes"
        return f"{error.message}. {error.hint}".rstrip(". ") + "."


def _told(result: TransferResult) -> str:
    if result.outcome == "queued":
        return f"Queued: {result.pending_reason}."
    where = result.owner_nickname or "there"
    return f"Already on {where}." if result.outcome == "noop" else f"Moved to {where}."
