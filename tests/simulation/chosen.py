"""The simulated world with every choice made from outside: which message arrives next, when time passes.

Its machines are those of the random worlds: real rules and coordinator, replicated ledger, baton, hub move.
What a machine sends, asks of a hub or is answered waits in ``pending`` until it is chosen; its own timers run
when time passes. A world can be copied at any instant, and says when two of them are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import fields, is_dataclass
from heapq import heappop
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import msgspec

from instar_node.coordination.lease_coordinator import AskPromises
from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from instar_node.coordination.lease_state import LeaseTiming, OpenSwap
from instar_node.coordination.record import KnownRecord, LeaseRecord
from tests.simulation.hub import Register
from tests.simulation.machine import Machine
from tests.simulation.settings import SECOND, Settings
from tests.simulation.states import slots_of
from tests.simulation.world import Event, World

AT_A_HUB = ("_at_hub", "_swap_at_hub")
OF_A_HUB = ("_on_read", "_on_outcome")
PACE = SECOND // 20
"""While a world settles, messages take this long."""


class NoDice:
    """Where the random world throws dice, nothing out of the ordinary happens."""

    def random(self) -> float:
        return 0.999

    def randint(self, low: int, high: int) -> int:
        return low

    def randrange(self, stop: int) -> int:
        return 0

    def choice(self, several: Any) -> Any:
        return several[-1]

    def shuffle(self, several: Any) -> None:
        return


class Pending(NamedTuple):
    """Something that may happen next."""

    text: str
    run: Callable[..., None]
    args: tuple[Any, ...]


class ChosenWorld(World):
    """Nothing happens by itself. The first machine's clock is as slow and all others' as fast as allowed."""

    def __init__(self, machines: int, hub: str, mutations: Mutations = NO_MUTATIONS) -> None:
        self.pending: list[Pending] = []
        self.ledger = True
        """Whether messages of replication may arrive."""
        settings = Settings(
            seed=0,
            machines=machines,
            hub=hub,
            ttl=2 * SECOND,
            bench_ttl=4 * SECOND,
            drift=0.2,
            loss=0.0,
            repeats=0.0,
            slow=0.0,
            slowest=0,
            pause=0,
            rows=0,
            faults=(),
        )
        super().__init__(settings, mutations)
        self.rng = NoDice()  # type: ignore[assignment]
        self.random = self.rng.random
        for machine in self.machines:
            machine.rate = 800_000 if machine.index == 0 else 1_200_000
            machine.offset = SECOND

    # -- what machines do to the world -----------------------------------------------------------------

    def at(self, delay: int, run: Callable[..., None], *args: Any) -> None:
        """A step of a hub may happen at any time; a machine's own timer runs when it is due."""
        name = run.__name__
        if name in AT_A_HUB:
            what = "reads" if name == "_at_hub" else "swaps"
            self.pending.append(Pending(f"{_owner(run)} {what} at the hub", run, args))
        elif name == "_mine" and args[1].__name__ == "_write_own":
            self.pending.append(Pending(f"{_owner(run)} writes its own register", run, args))
        elif name == "_mine" and args[1].__name__ in OF_A_HUB:
            self.pending.append(Pending(f"{_owner(run)} hears from the hub", run, args))
        else:
            super().at(delay, run, *args)

    def send(self, source: int, target: int, handler: Callable[..., None], *args: Any) -> bool:
        """A message arrives when it is chosen, or never."""
        machine = self.machines[target]
        if self.cut[source][target] or not machine.up:
            return False
        deliver = (machine, machine.boots, source, self._pushed, handler, args)
        of_ledger = handler.__name__ == "_hand_over"
        if of_ledger and not self.ledger:
            return False
        name = args[0].__name__ if of_ledger else handler.__name__
        text = f"{name} arrives at {machine.name}"
        self.pending.append(Pending(text, self._deliver, deliver))
        return True

    # -- what is chosen ----------------------------------------------------------------------------------

    def happen(self, number: int) -> None:
        """One of the pending things happens."""
        _, run, args = self.pending.pop(number)
        run(*args)

    def pass_time(self, duration: int) -> None:
        """Time passes, and timers run as they become due."""
        heap, end = self._heap, self.t + duration
        while heap and heap[0][0] <= end:
            self.t, _, run, args = heappop(heap)
            run(*args)
        self.t = end
        self._heap = [event for event in heap if _matters(event)]
        for machine in self.machines:
            if machine.up:
                machine.look(machine.now())

    def restart(self, machine: Machine) -> None:
        """A machine loses its memory and is back."""
        machine.crash()
        machine.boot()

    def settle(self, done: Callable[[], bool]) -> None:
        """Let everything happen in order until all is as it should be; what is under way then is lost."""
        for _ in range(2_000):
            if done():
                break
            while self.pending:
                self.happen(0)
            self.pass_time(PACE)
        else:
            raise AssertionError("the world does not settle")
        self.pending.clear()

    # -- copies ------------------------------------------------------------------------------------------

    def fork(self) -> ChosenWorld:
        """An equal world that goes its own way."""
        known: dict[int, Any] = {}
        twin = known[id(self)] = type(self).__new__(type(self))
        oracle = known[id(self.oracle)] = self.oracle.fork(twin)
        for name, value in vars(self).items():
            setattr(twin, name, _clone(value, known))
        assert twin.oracle is oracle
        return twin

    def key(self) -> Hashable:
        """What the future depends on."""
        timers = sorted((at - self.t, *_frozen((run, args))) for at, _, run, args in self._heap)
        under_way = sorted(repr(_frozen((pending.run, pending.args))) for pending in self.pending)
        return repr((self.t, list(map(_machine_key, self.machines)), timers, under_way, self._registers()))

    def _registers(self) -> list[Any]:
        return [_frozen(hub.value) for hub in self.hubs.values()]


def _matters(event: Event) -> bool:
    """Whether a timer does anything when it is due, unlike that of an earlier start or a finished round."""
    _, _, run, args = event
    machine = getattr(run, "__self__", None)
    if not isinstance(machine, Machine) or run.__name__ != "_mine":
        return True
    boots, handler, *rest = args
    if boots != machine.boots:
        return False
    if handler.__name__ == "_on_wake":
        return bool(machine._wake_at == rest[0])
    if handler.__name__ == "_round_over":
        return bool(rest[1])
    return handler.__name__ != "_on_unknown" or machine.lease.open is rest[0]


def _owner(run: Callable[..., None]) -> str:
    return run.__self__.name  # type: ignore[attr-defined,no-any-return]


OUTSIDE = frozenset({"world", "_world", "coordinator", "copy", "lease", "durable", "register", "_machine"})
DULL = frozenset({"counters", "nonce", "at", "vouched", "seen", "line", "name", "index", "rate", "offset"})


def _machine_key(machine: Machine) -> Any:
    parts = (machine, machine.lease, machine.coordinator, machine.copy)
    left_out = OUTSIDE | DULL | {"mutations", "timing", "build", "me"}
    states = [
        [(name, _frozen(value)) for name, value in _attributes(part) if name not in left_out]
        for part in parts
    ]
    return states, _frozen(machine.lease.durable), _frozen(machine.register.value)


def _attributes(thing: Any) -> Iterable[tuple[str, Any]]:
    if hasattr(thing, "__dict__"):
        yield from vars(thing).items()
    for name in slots_of(type(thing)):
        yield name, getattr(thing, name)


def _frozen(thing: Any) -> Any:
    kind = type(thing)
    if kind in (int, str, bool, float, type(None)):
        return thing
    if kind is KnownRecord:
        return thing.version
    if kind is LeaseRecord:
        return thing.nonce
    if kind in (tuple, list):
        return tuple(map(_frozen, thing))
    if kind in (set, frozenset):
        return tuple(sorted(map(repr, map(_frozen, thing))))
    if kind is dict:
        return tuple(sorted((str(name), repr(_frozen(value))) for name, value in thing.items()))
    if isinstance(thing, (MethodType, FunctionType)):
        return thing.__qualname__
    if kind is Machine:
        return thing.name
    if kind is Register:
        return thing.url
    if kind is OpenSwap:
        return (thing.record.nonce, thing.started, thing.proven)
    if isinstance(thing, msgspec.Struct):
        return tuple(_frozen(getattr(thing, name)) for name in thing.__struct_fields__)
    if is_dataclass(thing):
        return tuple(_frozen(getattr(thing, field.name)) for field in fields(thing))
    return tuple((name, _frozen(value)) for name, value in _attributes(thing) if name not in OUTSIDE)


UNCHANGING = frozenset(
    {
        *(int, str, bool, float, type(None), Counter, Settings, LeaseTiming, Mutations, NoDice),
        *(FunctionType, BuiltinFunctionType, AskPromises, LeaseRecord),
    }
)


def _clone(thing: Any, known: dict[int, Any]) -> Any:
    """A deep copy that shares what never changes, and ties methods to the copies of their objects."""
    kind = type(thing)
    if kind in UNCHANGING or issubclass(kind, msgspec.Struct):
        return thing
    if id(thing) in known:
        return known[id(thing)]
    if kind is tuple or issubclass(kind, tuple):
        parts = [_clone(part, known) for part in thing]
        return tuple(parts) if kind is tuple else kind(*parts)
    if kind is MethodType:
        return MethodType(thing.__func__, _clone(thing.__self__, known))
    if kind in (set, frozenset):
        twin = known[id(thing)] = kind(thing)
        return twin
    if kind is list:
        if not thing or type(thing[0]) is int:
            return thing.copy()
        several = known[id(thing)] = []
        several.extend(_clone(part, known) for part in thing)
        return several
    if kind is dict:
        table = known[id(thing)] = {}
        table.update((name, _clone(value, known)) for name, value in thing.items())
        return table
    twin = known[id(thing)] = kind.__new__(kind)
    for name, value in _attributes(thing):
        object.__setattr__(twin, name, _clone(value, known))
    return twin
