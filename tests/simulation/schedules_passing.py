"""For each rule about baton, force, hub move and split brain one schedule that goes wrong without it."""

from __future__ import annotations

from instar_node.coordination.lease_mutations import Mutations
from instar_node.coordination.record import KnownRecord, generation
from instar_node.coordination.successions import replace_record
from tests.simulation.cases import acting, case, known_to, mesh, must, take

# -- baton, move, split brain --------------------------------------------------------------------------------


@case("a closed register instance never reopens", "reopen_closed")
def reopened(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    closing = world.close("a", "b")
    world.pass_closing(closing, "b")
    take(world, "a")


@case("a decline is for good", "decline_not_stored")
def declined_and_opened(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    closing = world.close("a", "b")
    world.pass_closing(closing, "b", able=False)
    world.reopen("a")
    world.pass_closing(closing, "b")


@case("after a decline the closer goes on two epochs up", "reopen_one_epoch_up")
def epoch_of_the_declined_closing(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    closing = world.close("a", "b")
    world.pass_closing(closing, "b", able=False)
    world.reopen("a")
    must(world["a"].epoch == closing.record.epoch + 2, "the declined closing could still become this epoch")


@case("a new hub is opened by its mover, and by others after the usual wait", "move_without_wait")
def opened_by_a_bystander(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.move("a", "hub2")
    world.land("a")
    world.read("b")
    must(not world.may_contend("b"), "a member opens the new hub before its mover had the time to")
    world.wait(6.2)
    must(world.may_contend("b"), "nobody but the mover can finish the move")


@case("two holders of one epoch are a split brain", "ignore_twins")
def two_of_one_epoch(mutations: Mutations) -> None:
    world = mesh(mutations, "abc")
    first = world.hubs["hub"].value
    world.wait(6.2)
    take(world, "b")
    world.hubs["hub"].value = first
    world.oracle.lied = True
    take(world, "c")
    world.tell("b", "c")
    world.tell("c", "b")
    must(not acting(world), "two holders of one epoch met and go on")


@case("two forces of one generation are a split brain", "ignore_second_force")
def forced_twice(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    world.oracle.lied = True
    for name in "ab":
        world.force(name)
    for _ in range(2):
        world.crash("a")
        take(world, "a")
    world.tell("a", "b")
    world.tell("b", "a")
    must(not acting(world), "machines of two forces of one generation met and go on")


@case("evidence of a split brain stops us, durably", "act_on_evidence")
def evidence_is_obeyed(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.person_forced = True
    known = known_to(world, "a")
    twin = replace_record(known.record, holder="b", nonce="other")
    world.show("a", KnownRecord(twin, "other"))
    must(not world["a"].may_act(world.now("a")), "acts with evidence of a split brain")
    world.crash("a")
    world.wait(100)
    must(not world.may_contend("a"), "a restart forgets the split brain")


@case("a closing is opened by the machine that it names", "open_unnamed")
def opened_by_another(mutations: Mutations) -> None:
    world = mesh(mutations, "abc", baton=True)
    closing = world.close("a", "b")
    world.pass_closing(closing, "b")
    world.pass_closing(closing, "c")


@case("a closing is opened by a machine in sync", "open_from_bench")
def opened_from_the_bench(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c", baton=True)
    world.write("a", 1, "b")
    closing = world.close("a", "c")
    world.pass_closing(closing, "c")


@case("a closing that comes again late is not opened again", "open_older_closing")
def opened_twice(mutations: Mutations) -> None:
    world = mesh(mutations, "abc", baton=True)
    first = world.close("a", "b")
    world.pass_closing(first, "b")
    world.pass_closing(world.close("b", "c"), "c")
    world.pass_closing(first, "b")


@case("a forced takeover begins a new generation, which outranks the other side", "force_one_epoch_up")
def forced_while_the_holder_lives(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    world.force("b")
    world.crash("a")
    take(world, "a")
    world.tell("b", "a")
    must(acting(world) == ["b"], "the forced machine does not outrank the one that came back")


@case("who was forced awake says whose rows may be missing", "bench_not_incomplete")
def forced_and_claims_all(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    world.force("b")
    must("a" in known_to(world, "b").record.incomplete, "claims to have every row")


@case("a register to which the lease moves back is no rewound one", "moved_back_is_rewound")
def moved_there_and_back(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.move("a", "hub2")
    world.land("a")
    world.hear("a")
    left = known_to(world, "a").version
    take(world, "a")
    world.move("a", "hub", tip=left)
    world.land("a")
    world.hear("a")
    world.tell("a", "b")
    world.read("b")
    world.read("b")


@case("who stopped for a split brain does not contend", "contend_on_evidence")
def contends_all_the_same(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.person_forced = True
    first = known_to(world, "b")
    world.show("b", KnownRecord(replace_record(first.record, holder="b", nonce="other"), "other"))
    world.wait(100)
    must(not world.may_contend("b"), "contends although everybody has to stop")


@case("only a later generation ends a split brain", "evidence_ends_early")
def ended_by_the_next_epoch(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.person_forced = True
    first = known_to(world, "a")
    world.show("a", KnownRecord(replace_record(first.record, holder="b", nonce="other"), "other"))
    later = replace_record(first.record, epoch=2, serial=2, prev=first.version, holder="b", nonce="later")
    world.show("a", KnownRecord(later, "later"))
    must(world["a"].durable.evidence is not None, "the next record of a disputed line ends the dispute")


@case("a healed generation is above every line that was seen", "heal_below_other_line")
def healed_by_who_knew_neither_line(mutations: Mutations) -> None:
    world = mesh(mutations, "abc", baton=True)
    world.oracle.lied = True
    for name in "bc":
        world.force(name)
    world["a"].accept_proof(known_to(world, "b"), known_to(world, "c"))
    world.force("a")
    disputed = max(known_to(world, name).record.epoch for name in "bc")
    must(generation(world["a"].epoch) > generation(disputed), "the healed line is one of the disputed ones")
