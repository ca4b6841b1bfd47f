"""The client: sends keyed messages, each until some machine acknowledges it, a topic at a time in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence
from random import Random
from typing import Any

from instar_node.api import types as t
from instar_node.api.blocking_client import BlockingNodeApi
from instar_node.api.routes import Route
from instar_node.errors import InstarError
from tests.chaos.history import History, Sent
from tests.cluster.harness import Machine

IMPATIENCE_S = 3.0
REPEAT_CHANCE = 0.05
PAUSE_S = (0.02, 0.35)
WINDOW = 6
"""Messages of a topic that may wait for their answer; agents are slower than a client that only sends."""


class ImpatientApi(BlockingNodeApi):
    """Gives up on an answer after ``IMPATIENCE_S``, as a client does that has other machines to ask."""

    def _patience_s(self, route: Route[Any]) -> float:
        return min(super()._patience_s(route), IMPATIENCE_S)


class Client:
    """One thread a topic. ``finish`` lets each bring its last message home."""

    def __init__(
        self,
        machines: Sequence[Machine],
        topics: Sequence[str],
        history: History,
        answered: Callable[[], Container[str]],
    ) -> None:
        """``answered()`` gives the keys whose reply has arrived at the receiver."""
        self._answered = answered
        self._apis = [(machine.nickname, ImpatientApi(machine.home)) for machine in machines]
        self._history = history
        self._ending = threading.Event()
        self._give_up_at = float("inf")
        self._threads = [
            threading.Thread(target=self._talk, args=(topic, Random(f"{history.seed}-{topic}")), daemon=True)
            for topic in topics
        ]

    def start(self) -> None:
        """Begin to talk in all topics."""
        for thread in self._threads:
            thread.start()

    def finish(self, within: float) -> None:
        """Begin nothing new; what is not acknowledged in ``within`` seconds is noted as unanswered. Harmless
        when it never began, or has finished."""
        self._give_up_at = time.monotonic() + within
        self._ending.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _talk(self, topic: str, random: Random) -> None:
        acknowledged: list[tuple[str, int]] = []
        number = 0
        while not self._ending.is_set():
            key, number = f"{topic}-{number}", number + 1
            if not self._bring_home(key, topic, number, random, repeated=False):
                return
            acknowledged.append((key, number))
            if random.random() < REPEAT_CHANCE:
                known, place = random.choice(acknowledged)
                self._bring_home(known, topic, place, random, repeated=True)
            self._ending.wait(random.uniform(*PAUSE_S))
            while self._is_far_ahead(acknowledged) and not self._ending.is_set():
                self._ending.wait(0.05)

    def _is_far_ahead(self, acknowledged: list[tuple[str, int]]) -> bool:
        return len(acknowledged) >= WINDOW and acknowledged[-WINDOW][0] not in self._answered()

    def _bring_home(self, key: str, topic: str, number: int, random: Random, *, repeated: bool) -> bool:
        while time.monotonic() < self._give_up_at:
            nickname, api = random.choice(self._apis)
            try:
                taken = api.send(t.SendRequest(topic, f"this is {key}", key))
            except InstarError:
                time.sleep(random.uniform(0.01, 0.1))
                continue
            sent = Sent(time.monotonic(), key, topic, number, nickname, taken.duplicate, repeated)
            self._history.sent.append(sent)
            return True
        self._history.unanswered.append(key)
        return False
