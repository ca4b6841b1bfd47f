"""A run from beginning to end: build the mesh, break it while it talks, heal it, gather what is left."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from instar_node.delivery.loading import load_state
from instar_node.delivery.rows import MessageRow
from tests.chaos.checker import Violation, check
from tests.chaos.client import Client
from tests.chaos.disks import SmallDisks
from tests.chaos.history import Beat, Copy, Deed, History, Line, Sent
from tests.chaos.nemesis import FAULTS, Nemesis
from tests.chaos.network import Network
from tests.chaos.outside import Outside
from tests.chaos.sink import Sink
from tests.cluster.harness import Cluster, Machine, wait_for

TOPICS = 5
NICKNAMES = ("desk", "mini", "attic", "barn", "lab")
BENCH_TTL_MS = 90_000
"""Longer than any outage here: nobody takes over from the bench, so all that is promised must hold."""
HEALING_S = 90.0
"""After all is whole again, what was sent is acknowledged, answered and equal everywhere within this."""
AGENT = Path(__file__).parent / "agent.py"


class World:
    """A mesh with everything around it. ``close`` ends all of it."""

    def __init__(
        self,
        folder: Path,
        machines: int,
        seed: int,
        *,
        embedded: bool = False,
        bench_ttl_ms: int = BENCH_TTL_MS,
    ) -> None:
        """``embedded``: without a hub that all can reach; the lease moves by the baton alone."""
        self.folder = folder
        self._bench_ttl_ms = bench_ttl_ms
        self._embedded = embedded
        self.history = History(seed)
        self.topics = [f"topic-{number}" for number in range(TOPICS)]
        self.cluster = Cluster(folder)
        self.outside = Outside()
        self.sink = Sink(self.history)
        self.network = Network(self._pids)
        self._beats = folder / "beats.jsonl"
        self.disks = SmallDisks()
        sink_url = self.outside.do(self.sink.start())
        for nickname in NICKNAMES[:machines]:
            self.disks.mount(folder / nickname)
            self._configure(self.cluster.machine(nickname, hub=None if embedded else "path"), sink_url)

    def _configure(self, machine: Machine, sink_url: str) -> None:
        machine.urls = (self.outside.do(self.network.door(machine.nickname, machine.port)),)
        command = [sys.executable, "-I", "-S", str(AGENT), str(self._beats)]
        machine.configure(
            bench_ttl_ms=self._bench_ttl_ms,
            agent=f'[agent]\nkind = "command"\ncommand = {json.dumps(command)}\n',
            more=f'[channels.webhook]\nurl = "{sink_url}"\n',
        )

    def start(self) -> None:
        """Start and pair all machines."""
        first, *others = self.cluster.machines
        first.start()
        wait_for(first.is_awake, HEALING_S)
        for other in others:
            self.cluster.join(first, other)
            other.start()
        self.cluster.wait_in_sync(first, others, HEALING_S)

    def run(self, seconds: float, hands: int = 2, only: Collection[str] = ()) -> list[Violation]:
        """Talk and break things for so long, heal, and judge; ``only`` as in ``Nemesis``."""
        faults = [fault for fault in only or FAULTS if self._is_possible(fault)]
        nemesis = Nemesis(
            self.cluster, self.outside, self.network, self.sink, self.topics, self.history, faults
        )
        with self.talking(HEALING_S):
            nemesis.start(hands)
            try:
                time.sleep(seconds)
            finally:  # also when a person interrupts: nothing is started again after that
                nemesis.stop()
        trouble = [Violation("nemesis", repr(failure)) for failure in nemesis.failures]
        return trouble or self.judge()

    @contextmanager
    def talking(self, within: float) -> Iterator[None]:
        """Somebody sends messages in all topics meanwhile, and brings the last ones home at the end."""
        client = Client(self.cluster.machines, self.topics, self.history, self.sink.answered)
        client.start()
        try:
            yield
            client.finish(within)
        finally:
            client.finish(0)

    def _is_possible(self, fault: str) -> bool:
        if fault == "full_disk":
            return self.disks.mounted
        return not (self._embedded and fault.startswith("hub"))

    def send(self, machine: Machine, key: str, number: int) -> None:
        """One message in the first topic through one machine, repeated until it is acknowledged."""
        topic = self.topics[0]
        taken = wait_for(lambda: machine.say(topic, f"this is {key}", key), 30)
        sent = Sent(time.monotonic(), key, topic, number, machine.nickname, taken.duplicate)
        self.history.sent.append(sent)

    def note(self, deed: str) -> None:
        """Write down what is done to the mesh, for the report."""
        self.history.deeds.append(Deed(time.monotonic(), deed))

    def judge(self) -> list[Violation]:
        """Wait until all machines agree that all is done, gather everything, and check it."""
        late = self._settle()
        self._gather()
        return [*late, *check(self.history)]

    def close(self) -> None:
        """End every process and the outside."""
        self.cluster.close()
        self.disks.unmount()
        self.outside.do(self.network.close())
        self.outside.do(self.sink.stop())
        self.outside.close()

    # -- the end of a run ---------------------------------------------------------------------------------

    def _settle(self) -> list[Violation]:
        wanted = {sent.key for sent in self.history.sent}
        try:
            wait_for(lambda: wanted <= self.sink.answered(), HEALING_S, every=0.1)
            wait_for(self._all_in_sync, HEALING_S, every=0.2)
        except AssertionError as error:
            missing = tuple(sorted(wanted - self.sink.answered()))
            return [Violation("liveness", f"not settled after healing: {error}; missing {missing}", missing)]
        return []

    def _all_in_sync(self) -> bool:
        """One machine is awake, the others are in its electorate, and nothing is still on its way to them."""
        everyone = {machine.id for machine in self.cluster.machines}
        awake = self.cluster.awake()
        if len(awake) != 1 or set(awake[0].api.lease().electorate) != everyone:
            return False
        return len({tuple(self._log(machine)) for machine in self.cluster.machines}) == 1

    def _gather(self) -> None:
        self.history.beats = self.beats()
        for machine in self.cluster.machines:
            self.history.copies.append(
                Copy(
                    machine.id,
                    self._log(machine),
                    self._rows(machine),
                    self._lines(machine),
                    _holders(machine),
                )
            )
        self.history.register = self._register()

    def beats(self) -> list[Beat]:
        """What the agents have written so far. A killed one may leave half a line."""
        lines = self._beats.read_text().splitlines() if self._beats.exists() else []
        return [Beat(*json.loads(line)) for line in lines if line.endswith("]")]

    def _log(self, machine: Machine) -> list[str]:
        rows = ledger_entries(machine)
        return [f"{epoch}.{seq} {kind} {digest[:12]}" for epoch, seq, kind, digest in rows]

    def _rows(self, machine: Machine) -> dict[str, str]:
        found = {}
        with closing(_database(machine)) as connection:
            connection.execute("BEGIN")
            saved = connection.execute("SELECT key, row FROM messages").fetchall()
            rows = {key: msgspec.msgpack.decode(blob, type=MessageRow) for key, blob in saved}
            for row in (rows | load_state(connection).unsaved.rows).values():
                digest = hashlib.sha256(msgspec.msgpack.encode(row)).hexdigest()
                found[row.key] = f"{row.state} {digest[:12]} {row}"
        return found

    def _lines(self, machine: Machine) -> list[Line]:
        lines: list[Line] = []
        for topic in self.topics:
            after = 0
            while page := machine.api.messages(topic, after, 1_000).messages:
                after = page[-1].seq
                lines += [Line(topic, row.seq, row.role, row.reply_to or row.key, row.text) for row in page]
        return lines

    def _register(self) -> dict[int, list[str]]:
        """Who held each epoch, as the commits of the register's ref tell, in the hub or in each home."""
        homes = [str(machine.home.hub) for machine in self.cluster.machines if machine.home.hub.exists()]
        holders: dict[int, list[str]] = {}
        for hub in homes if self._embedded else [self.cluster.hub]:
            for commit in _git(hub, "log", "--format=%H", "refs/instar/lease").split():
                record = json.loads(_git(hub, "show", f"{commit}:lease.json"))
                if record["holder"] not in holders.setdefault(record["epoch"], []):
                    holders[record["epoch"]].append(record["holder"])
        return holders

    def _pids(self) -> dict[str, int]:
        return {m.nickname: m.daemon.pid for m in self.cluster.machines if m.alive}

    # -- when it went wrong -------------------------------------------------------------------------------

    def report(self, violations: list[Violation]) -> str:
        """Seed, violations, what the nemesis did, and the log lines that speak of what is violated."""
        start = self.history.deeds[0].at if self.history.deeds else 0.0
        deeds = [f"{deed.at - start:8.2f}  {deed.what}" for deed in self.history.deeds]
        found = [f"{violation.rule}: {violation.text}" for violation in violations]
        about = {name for violation in violations[:5] for name in violation.about}
        lines = [line for name in sorted(about)[:4] for line in self._said_of(name)]
        seed = f"seed {self.history.seed}"
        text = "\n".join([seed, *deeds, *lines, f"{seed}:", *found])
        for machine in self.cluster.machines:
            if machine.alive:
                text = text.replace(machine.id, machine.nickname)
        return text

    def _said_of(self, name: str) -> list[str]:
        exact = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
        said = [f"-- attempts and logs about {name}"]
        said += [str(attempt) for attempt in self.history.attempts if attempt.reply_to == name]
        for machine in self.cluster.machines:
            said += [f"{machine.nickname}: {line}" for line in machine.log() if exact.search(str(line))][-30:]
        return said


def _git(repository: str, *command: str) -> str:
    ran = subprocess.run(["git", "-C", repository, *command], capture_output=True, text=True, check=True)
    return ran.stdout


def ledger_entries(machine: Machine) -> list[tuple[int, int, str, str]]:
    """Epoch, seq, kind and hash of every entry, as they are on a machine's disk at this moment."""
    return _read(machine, "SELECT epoch, seq, kind, hex(hash) FROM ledger_log ORDER BY epoch, seq")


def _read(machine: Machine, query: str) -> list[tuple[Any, ...]]:
    with closing(_database(machine)) as connection:
        return connection.execute(query).fetchall()


def _database(machine: Machine) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{machine.home.database}?mode=ro", uri=True)


def _holders(machine: Machine) -> dict[int, str]:
    return {row.epoch: row.holder for row in machine.api.lease().history}
