"""``python -m tests.simulation``: more seeds than the test run has, and a failing one replayed.

``--seeds N [--first S]`` runs so many worlds on all cores and counts what happened in them; ``--seed S``
replays one and prints its events; ``--without RULE`` does either with a rule of the lease switched off;
``--small`` enumerates the small worlds; ``--mutants`` prints for each rule the schedule that breaks a promise
without it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields

from instar_node.coordination.lease_mutations import NO_MUTATIONS, Mutations
from tests.simulation.chosen_scopes import CHOSEN, enumerate_chosen
from tests.simulation.coverage import table
from tests.simulation.enumeration import SCOPES, enumerate_scope
from tests.simulation.mutants import CASES, ELSEWHERE, ENUMERATED
from tests.simulation.oracle import Violation
from tests.simulation.seeds import STEPS, Tally, replay, run_seeds
from tests.simulation.settings import settings_of

CHUNK = 50


def one(seed: int, steps: int, lines: int, mutations: Mutations) -> int:
    """Print the last lines of one world; 1 if it broke a promise."""
    trace, violation = replay(seed, steps, mutations)
    print(settings_of(seed), *trace[-lines:], sep="\n")
    return int(violation is not None)


def many(first: int, count: int, steps: int, mutations: Mutations) -> int:
    """Run many worlds; 1 if any broke a promise."""
    total = Tally()
    chunks = [range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK)]
    with ProcessPoolExecutor() as pool:
        for tally in pool.map(run_seeds, chunks, [steps] * len(chunks), [mutations] * len(chunks)):
            total.add(tally)
            print(*tally.broken, sep="\n\n", end="\n" * bool(tally.broken))
    print(table(total.seen))
    print(total)
    return int(bool(total.broken))


def mutants() -> int:
    """Print the table of rules and schedules; 1 if one of them is not needed."""
    missed = 0
    for case in CASES:
        outcomes = []
        for without_rule in (False, True):
            try:
                case.play(without_rule=without_rule)
            except Violation as violation:
                outcomes.append(str(violation))
            else:
                outcomes.append("passes")
        good = outcomes[0] == "passes" != outcomes[1]
        missed += not good
        print(f"{'caught' if good else 'MISSED'}  {case.flag:26} {case.schedule.__name__:32} {case.rule}")
        print(f"        without it: {outcomes[1]}" if good else f"        {outcomes}")
    for flag, number in ENUMERATED:
        print(f"found   {flag:26} too, in the enumerated world: {SCOPES[number].name}")
    for rule, test, without_rule in ELSEWHERE:
        print(f"caught  {rule}\n        with it: {test}\n        without it: {without_rule}")
    print(f"{len(CASES)} schedules, {len({case.flag for case in CASES})} rules switched off, {missed} missed")
    return int(bool(missed))


def small() -> int:
    """Enumerate every small world; 1 if a promise can be broken in one."""
    broken = 0
    results = itertools.chain(
        ((scope.name, enumerate_scope(scope)) for scope in SCOPES),
        ((scope.name, enumerate_chosen(scope)) for scope in CHOSEN),
    )
    for name, found in results:
        print(f"{name}: {found.states} states, {found.steps} steps")
        if found.violation is not None:
            broken += 1
            print(f"  {found.violation}: {'; '.join(found.path)}")
    return int(bool(broken))


def main(arguments: list[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, help="replay one")
    parser.add_argument("--lines", type=int, default=400, help="how much of its trace to print")
    parser.add_argument(
        "--without",
        metavar="RULE",
        choices=sorted(field.name for field in fields(Mutations)),
        help="switch a rule of the lease off (a name of the first column of --mutants)",
    )
    parser.add_argument("--mutants", action="store_true", help="every rule switched off in turn")
    parser.add_argument("--small", action="store_true", help="every interleaving of small worlds")
    options = parser.parse_args(arguments)
    mutations = Mutations(**{options.without: True}) if options.without else NO_MUTATIONS
    if options.seed is not None:
        return one(options.seed, options.steps, options.lines, mutations)
    if options.small:
        return small()
    if options.mutants:
        return mutants()
    return many(options.first, options.seeds, options.steps, mutations)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
