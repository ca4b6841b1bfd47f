"""A small world in which whoever drives it chooses every step: a directed schedule, or all of them.

The machines run the real ``FencedLease`` without a coordinator: they do what the rules *allow*, not only what
is wise. Nothing happens by itself, not even time. After each step the oracle looks.
"""

from __future__ import annotations

from typing import Any

from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from instar_node.coordination.lease_state import FOREVER, LeaseTiming, OpenSwap, SwapKind
from instar_node.coordination.record import HubPlace, KnownRecord, LeaseRecord
from tests.simulation.oracle import Oracle

MS = 1_000
Message = tuple[Any, ...]


class SmallRegister:
    """A register that is swapped when it is told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.value: KnownRecord | None = None
        self.written = 0


class SmallMachine:
    """One machine. ``disk`` is what it has stored; ``clock`` how its clock runs, in thousandths."""

    def __init__(self, name: str, clock: int) -> None:
        self.name = name
        self.clock = clock
        self.boots = 0
        self.rows: set[int] = set()
        self.lease = FencedLease(name, "", LeaseTiming(0, 0, 0, 0.0))
        self.disk = self.lease.durable
        self.own_register = SmallRegister("")
        self.acting_until = 0
        self.acting_epoch = 0
        self.line = ""

    @property
    def copy(self) -> SmallMachine:
        """The rows it knows, where the oracle looks for them."""
        return self

    @property
    def known(self) -> set[int]:
        return self.rows


class SmallWorld:
    """Machines, registers and messages under way.

    Args:
        clocks: Thousandths of real time by which each machine's clock runs: 1000 is right.
        ttl, bench_ttl: Milliseconds.
        drift: The clock error that the rules allow for.
        baton: Whether the founding hub is embedded.
    """

    def __init__(
        self,
        clocks: dict[str, int],
        *,
        ttl: int = 6_000,
        bench_ttl: int = 60_000,
        drift: float = 0.01,
        baton: bool = False,
        mutations: Mutations = NO_MUTATIONS,
    ) -> None:
        self.timing = LeaseTiming(ttl * MS, ttl * MS // 3, bench_ttl * MS, drift)
        self.baton = baton
        self.mutations = mutations
        self.t = 0
        self.log: list[str] | None = []
        self.hubs = {"hub": SmallRegister("hub")}
        self.machines = [SmallMachine(name, clock) for name, clock in clocks.items()]
        self.by_name = {machine.name: machine for machine in self.machines}
        self.under_way: list[Message] = []
        self.person_forced = False
        self.oracle = Oracle(self)
        for machine in self.machines:
            self._start(machine)

    # -- what the oracle needs ---------------------------------------------------------------------------

    def say(self, text: str) -> None:
        if self.log is not None:
            self.log.append(f"{self.t / 1e6:9.3f}  {text}")

    def note(self, kind: str) -> None:
        """Nobody counts here: a schedule knows what it does."""

    def register_of(self, machine: SmallMachine, place: HubPlace | None) -> SmallRegister:
        if place is None:
            return machine.own_register if self.baton else self.hubs["hub"]
        if not place.url:
            return machine.own_register
        return self.hubs.setdefault(place.url, SmallRegister(place.url))

    def forgives_evidence(self) -> bool:
        return self.person_forced

    # -- time and life -----------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> FencedLease:
        return self.by_name[name].lease

    def now(self, name: str) -> int:
        """Microseconds on a machine's clock."""
        return 1_000_000 + self.t * self.by_name[name].clock // 1_000

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.t += round(seconds * 1_000_000)

    def tick(self, seconds: float) -> None:
        """Time passes, and the oracle looks."""
        self.wait(seconds)
        self._look()

    def crash(self, name: str) -> None:
        """Restart with nothing but what is on disk."""
        self.say(f"{name} restarts")
        self.under_way = [m for m in self.under_way if m[0] == "swap" or m[1] != name]
        self._start(self.by_name[name])
        self._after(name)

    def _start(self, machine: SmallMachine) -> None:
        machine.boots += 1
        machine.acting_until = 0
        machine.lease = FencedLease(
            machine.name,
            f"{machine.name}.{machine.boots}",
            self.timing,
            machine.disk,
            baton=self.baton,
            mutations=self.mutations,
        )
        machine.lease.boot(self.now(machine.name))

    def _after(self, *names: str) -> None:
        """Store what must be stored, and look who acts."""
        for name in names:
            machine = self.by_name[name]
            lease, before = machine.lease, machine.disk
            if lease.durable is not before:
                machine.disk = lease.durable
                self.oracle.on_stored(before.newest, lease.durable.newest)
                if lease.durable.evidence is not None and before.evidence is None:
                    self.oracle.on_evidence(machine, lease.durable.evidence)
        self._look()

    def _look(self) -> None:
        for machine in self.machines:
            machine.acting_until = 0 if not machine.lease.may_act(self.now(machine.name)) else FOREVER
            if machine.acting_until and machine.lease.own is not None:
                machine.line = machine.lease.own.record.origin
        for machine in self.machines:
            if machine.acting_until:
                assert machine.lease.own is not None
                epoch = machine.lease.own.record.epoch
                self.oracle.on_acting(machine, epoch, machine.acting_until)

    # -- swaps -------------------------------------------------------------------------------------------

    def found(self, name: str, electorate: str = "", benched: str = "") -> None:
        """The first record, with these others in it already; everybody has seen it."""
        lease = self[name]
        record = lease.founding_record(at="", nonce="first")
        record = _with(record, electorate=tuple(sorted({name, *electorate})), benched=tuple(benched))
        self.send(name, record, "contend", None)
        self.land(name)
        self.hear(name)
        for other in self.by_name:
            if other in {*electorate, *benched}:
                self.tell(name, other)

    def send(self, name: str, record: LeaseRecord, kind: SwapKind, expected: str | None) -> OpenSwap:
        """A swap leaves."""
        swap = self[name].begin_swap(record, kind, self.now(name), expected)
        self.leave(name, swap)
        return swap

    def leave(self, name: str, swap: OpenSwap) -> None:
        """An open swap is under way."""
        self.say(f"{name} sends {swap.kind} ({swap.record.epoch}, {swap.record.serial})")
        self.under_way.append(("swap", name, self.by_name[name].boots, swap))
        self._after(name)

    def may_contend(self, name: str) -> bool:
        """Whether the rules let this machine contend now."""
        lease = self[name]
        due = lease.may_contend_at(self.now(name))
        return lease.open is None and not isinstance(due, str) and due <= self.now(name)

    def contend(self, name: str) -> bool:
        """Contend if that is allowed; whether it was."""
        if not self.may_contend(name):
            return False
        lease = self[name]
        record = lease.contender_record(reason="", at="", nonce=self._nonce(name, "contend"))
        self.send(name, record, "contend", self._expected(name))
        return True

    def renew(self, name: str, electorate: str, benched: str = "") -> None:
        """The holder changes the lists."""
        record = self[name].next_record(
            reason="",
            at="",
            nonce=self._nonce(name, f"{electorate}/{benched}"),
            electorate=tuple(electorate),
            benched=tuple(benched),
        )
        self.send(name, record, "renew", self._expected(name))

    def release(self, name: str) -> None:
        """The holder lets go."""
        own = self._own(name)
        record = self[name].next_record(
            reason="", at="", nonce=self._nonce(name, "release"), state="released"
        )
        self[name].cease(own)
        self._after(name)
        self.send(name, record, "release", self._expected(name))

    def close(self, name: str, successor: str) -> KnownRecord:
        """The baton's holder closes its register for a successor; the closing."""
        own = self._own(name)
        record = self[name].next_record(
            reason="", at="", nonce=self._nonce(name, "close"), state="closed", successor=successor
        )
        self[name].cease(own)
        self._after(name)
        self.send(name, record, "close", own)
        self.land(name)
        self.hear(name)
        return KnownRecord(record, record.nonce)

    def move(self, name: str, url: str, tip: str | None = None) -> None:
        """The holder closes the register in favour of another hub, which still holds ``tip``."""
        own = self._own(name)
        record = self[name].moving_record(
            HubPlace(url, url, tip), reason="", at="", nonce=self._nonce(name, "move")
        )
        self[name].cease(own)
        self._after(name)
        self.send(name, record, "close", own)

    def force(self, name: str) -> None:
        """A person vouches for everybody else."""
        self.person_forced = True
        lease = self[name]
        register = self.register_of(self.by_name[name], lease.hub)
        record = lease.force_record(at="", nonce=self._nonce(name, "force"))
        lease.heal()
        self.send(name, record, "contend", register.value.version if register.value else None)
        self.land(name)
        self.hear(name)

    def land(self, name: str) -> bool:
        """The newest swap of a machine is applied, or refused; the answer is under way."""
        message = next(m for m in reversed(self.under_way) if m[0] == "swap" and m[1] == name)
        self.under_way.remove(message)
        return self.apply(message)

    def apply(self, message: Message) -> bool:
        """A swap reaches its register."""
        _, name, boots, swap = message
        register = self.register_of(self.by_name[name], swap.hub)
        candidate = KnownRecord(swap.record, swap.record.nonce)
        version = register.value.version if register.value is not None else None
        won = version in (swap.expected, candidate.version)
        if won and version != candidate.version:
            self.say(f"the register takes ({swap.record.epoch}, {swap.record.serial}) of {name}")
            self.oracle.on_landing(register, candidate)
            register.value, register.written = candidate, self.t
        self.under_way.append(("outcome", name, boots, swap, won, register.value))
        return won

    def hear(self, name: str) -> None:
        """The answer to the newest swap of a machine arrives."""
        message = next(m for m in reversed(self.under_way) if m[0] == "outcome" and m[1] == name)
        self.under_way.remove(message)
        self.deliver(message)

    def lose_answer(self, name: str) -> None:
        """The answer is lost: the machine does not know."""
        self.under_way = [m for m in self.under_way if not (m[0] == "outcome" and m[1] == name)]

    def _expected(self, name: str) -> str | None:
        lease = self[name]
        if lease.baton:
            value = self.by_name[name].own_register.value
            return value.version if value is not None else None
        return lease.known.version if lease.known and not lease.known.record.moves else None

    def _own(self, name: str) -> str:
        own = self[name].own
        assert own is not None
        assert own.version is not None
        return own.version

    def _nonce(self, name: str, what: str) -> str:
        """The same for the same record in every interleaving, and only for it."""
        epoch, serial = self[name].order
        return f"{self[name].incarnation}:{epoch}.{serial}:{what}"

    # -- reads and messages --------------------------------------------------------------------------------

    def read(self, name: str) -> None:
        """Read the register, there and back in an instant."""
        self.begin_read(name)
        self.deliver(self.under_way.pop())

    def begin_read(self, name: str) -> None:
        """The register is read now; the answer is under way."""
        lease = self[name]
        value = self.register_of(self.by_name[name], lease.hub).value
        boots = self.by_name[name].boots
        self.under_way.append(("read", name, boots, value, lease.order, self.now(name), lease.hub))

    def ask(self, name: str, *members: str) -> None:
        """A holder asks these machines for promises; the requests are under way."""
        lease = self[name]
        own = lease.own
        assert own is not None
        assert own.version is not None
        record = KnownRecord(own.record, own.version)
        for member in members:
            boots, askers_boots = self.by_name[member].boots, self.by_name[name].boots
            self.under_way.append(("ask", member, boots, name, askers_boots, record, self.now(name)))

    def round(self, name: str, *members: str) -> None:
        """A whole promise round with these machines, in an instant."""
        self.ask(name, *members)
        for _ in members:
            asked = next(m for m in self.under_way if m[0] == "ask" and m[3] == name)
            self.under_way.remove(asked)
            self.deliver(asked)
            answers = [m for m in self.under_way if m[0] == "promise" and m[1] == name]
            for answer in answers:
                self.under_way.remove(answer)
                self.deliver(answer)

    def token(self, name: str, successor: str) -> None:
        """The holder gives its record up for a successor; the token is under way."""
        version = self._own(name)
        self[name].cease(version)
        self._after(name)
        self.under_way.append(("token", successor, self.by_name[successor].boots, version, name))

    def deliver(self, message: Message) -> None:
        """A message arrives, or finds that its receiver has restarted."""
        kind, name, boots, *rest = message
        if self.by_name[name].boots != boots:
            return
        lease, now = self[name], self.now(name)
        if kind == "outcome":
            swap, won, value = rest
            if lease.open is not swap:
                return
            if won:
                lease.on_won(value, now)
            else:
                lease.on_lost(value, now)
        elif kind == "read":
            value, before, began, place = rest
            if place == lease.hub:
                lease.on_read(value, before, began, now)
        elif kind == "ask":
            asker, asker_boots, record, began = rest
            if lease.answer_promise(asker, record, now) is None:
                self.under_way.append(("promise", asker, asker_boots, name, record.version, began))
        elif kind == "promise":
            member, version, began = rest
            lease.on_promise(member, version, began, now)
        elif kind == "token":
            version, signer = rest
            lease.accept_token(version, signer)
        self.say(f"{name} gets {kind}")
        self._after(name)

    def arrive(self, kind: str, name: str) -> None:
        """The oldest message of a kind to a machine arrives."""
        message = next(m for m in self.under_way if m[0] == kind and m[1] == name)
        self.under_way.remove(message)
        self.deliver(message)

    def tell(self, source: str, target: str) -> None:
        """One machine tells another the newest record it knows, and the evidence it has."""
        known, proof = self[source].known, self[source].durable.proof
        if known is not None:
            self.show(target, known)
        if len(proof) == 2:
            self[target].accept_proof(*proof)
            self._after(target)

    def show(self, name: str, known: KnownRecord) -> None:
        """A machine is shown a record, wherever it comes from."""
        self[name].learn(known, self.now(name))
        self._after(name)

    # -- the baton -----------------------------------------------------------------------------------------

    def pass_closing(self, closing: KnownRecord, target: str, *, able: bool = True) -> str:
        """A closing reaches a machine: it opens its own register from it, or declines. The outcome."""
        lease = self[target]
        refusal = lease.may_open(closing) or ("" if able else "not able")
        if refusal:
            lease.decline(closing.version)
            self._after(target)
            return f"declined: {refusal}"
        lease.learn(closing, self.now(target))
        record = lease.opening_record(closing, reason="", at="", nonce=self._nonce(target, "pass_closing"))
        self.send(target, record, "contend", self._expected(target))
        self.land(target)
        self.hear(target)
        return "opened"

    def reopen(self, name: str) -> None:
        """The closer got a signed decline."""
        record = self[name].reopening_record(reason="", at="", nonce=self._nonce(name, "reopen"))
        self.send(name, record, "contend", self._expected(name))
        self.land(name)
        self.hear(name)

    # -- rows ----------------------------------------------------------------------------------------------

    def write(self, name: str, row: int, *copied_to: str) -> bool:
        """The holder logs a row and these machines copy it; whether it may be acknowledged now."""
        for machine in (name, *copied_to):
            self.by_name[machine].rows.add(row)
        lease = self[name]
        safe = lease.may_act(self.now(name)) and lease.ack_set() <= {*copied_to}
        if safe:
            self.oracle.on_acknowledged(self.by_name[name], row)
        return safe


def _with(record: LeaseRecord, **changes: object) -> LeaseRecord:
    from instar_node.coordination.successions import replace_record

    return replace_record(record, **changes)
