"""For each rule about who may act and who may contend one schedule that goes wrong without it."""

from __future__ import annotations

from instar_node.coordination.lease_coordinator import LeaseCoordinator, SendSwap
from instar_node.coordination.lease_mutations import Mutations
from tests.simulation.cases import RIGHT, Peers, case, known_to, mesh, must, take
from tests.simulation.small_world import SmallWorld

# -- who may act -----------------------------------------------------------------------------------------


@case("validity counts from before a round was asked", "time_from_reply")
def slow_answer(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(3)
    world.ask("a", "b")
    world.arrive("ask", "b")
    world.wait(2.9)
    world.arrive("promise", "a")
    world.wait(3.3)
    take(world, "b")


@case("validity counts from before a swap was sent", "time_from_win")
def slow_win(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.crash("a")
    world.wait(6.2)
    world.contend("a")
    world.land("a")
    world.read("b")
    world.wait(5)
    world.hear("a")
    world.wait(1.2)
    take(world, "b")


@case("a contender waits for the slowest clock from the fastest", "no_margin")
def clocks_apart(mutations: Mutations) -> None:
    world = SmallWorld({"a": 991, "b": 1_009}, mutations=mutations)
    world.found("a", "b")
    world.wait(6 / 1.009 + 0.001)
    take(world, "b")
    world.wait(6.0545 - 6 / 1.009)
    take(world, "b")


@case("every other machine of the electorate must promise", "majority")
def one_of_two_promises(mutations: Mutations) -> None:
    world = mesh(mutations, "abc")
    world.wait(5)
    world.round("a", "b")
    world.wait(1.2)
    take(world, "c")


@case("while an own swap is open, a round needs both electorates", "round_of_one_electorate")
def joiner_not_asked(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.wait(1)
    world.renew("a", "abc")
    world.land("a")
    world.lose_answer("a")
    world.read("c")
    world.wait(4)
    world.round("a", "b")
    world.wait(2.2)
    take(world, "c")


@case("with somebody benched, only a swap leads beyond bench_ttl", "no_bench_bound")
def rounds_beyond_the_bench(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    for _ in range(12):
        world.wait(5)
        world.round("a", "b")
    world.wait(1.3)
    take(world, "c")


@case("a holder whose time has run out stops", "act_unsupported")
def silence(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(6.2)
    take(world, "b")


@case("a holder that cannot become valid collects no promises: bench bound", "collect_when_unable")
def promises_for_nothing(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    for _ in range(40):
        world.wait(2)
        if world["a"].can_use_promises(world.now("a")):
            world.round("a", "b")
    take(world, "b")
    must(world["b"].may_act(world.now("b")), "a holder that may not act keeps everybody from taking over")


@case(
    "a holder that cannot become valid collects no promises: lapsed without hub",
    "collect_when_unable",
)
def lapsed_without_hub(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(6.05)
    for _ in range(5):
        if world["a"].can_use_promises(world.now("a")):
            world.round("a", "b")
        world.wait(2)
    take(world, "b")
    must(world["b"].may_act(world.now("b")), "a lapsed holder without its hub keeps all from taking over")


@case("an acknowledgement needs every electorate that may be current", "ack_by_one_electorate")
def joiner_without_the_row(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.renew("a", "abc")
    world.land("a")
    must(not world.write("a", 1, "b"), "acknowledged without a machine that may be in the electorate")


# -- the numbered rules ----------------------------------------------------------------------------------


@case("rule 1: a newer record in the register is adopted, or ends our acting", "ignore_newer_register")
def neither_adopted_nor_dropped(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.wait(1)
    world.renew("a", "abc")
    world.land("a")
    world.lose_answer("a")
    world.read("c")
    world.read("a")
    world.wait(4)
    world.round("a", "b")
    world.wait(2.2)
    take(world, "c")


@case("rule 1: a released record is not adopted", "adopt_released")
def released_and_adopted(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(1)
    world.release("a")
    world.land("a")
    world.read("b")
    take(world, "b")
    world.hear("a")


@case("rule 2: a record of an earlier start is someone else's", "adopt_any_incarnation")
def record_of_an_earlier_start(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.crash("a")
    world.wait(6.2)
    world.contend("a")
    world.land("a")
    world.crash("a")
    world.read("b")
    world.wait(5)
    world.read("a")
    world.wait(1.2)
    take(world, "b")


@case("rule 2: what was held before a restart is not held after it", "trust_earlier_incarnation")
def restart_and_go_on(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(5)
    world.crash("a")
    world.wait(1.2)
    take(world, "b")


@case("rule 2: a lone holder wins a swap before it acts again", "lone_acts_without_swap")
def no_longer_alone(mutations: Mutations) -> None:
    world = SmallWorld({"a": RIGHT, "c": RIGHT}, mutations=mutations)
    world.found("a")
    world.renew("a", "a", "c")
    world.land("a")
    world.crash("a")
    world.read("c")
    take(world, "a")
    world.wait(62)
    take(world, "c")


@case("rule 3: stop before a release leaves", "act_after_ceased")
def act_after_release(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.release("a")
    world.land("a")
    world.read("b")
    take(world, "b")


@case("rule 3: stop before a token leaves", "act_after_ceased")
def act_after_token(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.token("a", "b")
    world.arrive("token", "b")
    take(world, "b")


@case("rule 3: stop before a closing leaves", "act_after_ceased")
def act_after_closing(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.move("a", "hub2")
    must(not world["a"].may_act(world.now("a")), "acts on a record whose closing is under way")


@case("rule 3: a late round answer does not revive what was given up", "act_after_ceased")
def late_answer_after_token(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(5)
    world.ask("a", "b")
    world.arrive("ask", "b")
    world.token("a", "b")
    world.arrive("token", "b")
    world.arrive("promise", "a")
    world.wait(2)
    take(world, "b")


@case("rule 4: after a restart every wait begins anew", "waits_survive_boot")
def promise_forgotten_in_a_crash(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(5)
    world.round("a", "b")
    world.crash("b")
    world.wait(1.2)
    take(world, "b")


@case("rule 5: an open swap blocks promising", "promise_while_swap_open")
def promise_beside_a_swap(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(6.2)
    world.contend("b")
    world.read("a")
    world.round("a", "b")
    world.land("b")
    world.hear("b")


@case("rule 5: an unknown swap is sent again, unchanged, until the register differs", "forget_unknown")
def unknown_swap(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(6.2)
    coordinator = LeaseCoordinator(world["b"], lambda: "x", lambda: "")
    now = world.now("b")
    sent = [effect for effect in coordinator.tick(now, Peers()) if isinstance(effect, SendSwap)]
    coordinator.on_unknown(now, 1)
    again = [e for e in coordinator.tick(now + 1_000_000, Peers()) if isinstance(e, SendSwap)]
    must(bool(sent) and again == sent, "a swap that may land is forgotten, or sent again changed")
    must(world["b"].answer_promise("a", known_to(world, "a"), now) is not None, "promised beside it")


@case("rule 6: a lapsed holder goes on only when the register still shows its record", "resume_without_read")
def resume_unread(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(6.2)
    world.contend("b")
    world.land("b")
    world.crash("b")
    world.round("a", "b")
    must(not world["a"].may_act(world.now("a")), "acts in an epoch that the register has left")


@case("rule 6: a lapsed holder goes on only by promises given after the lapse", "resume_without_round")
def resume_by_old_promises(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(5)
    world.ask("a", "b")
    world.arrive("ask", "b")
    world.wait(3)
    world.read("a")
    world.arrive("promise", "a")
    must(not world["a"].may_act(world.now("a")), "goes on by a promise from before it lapsed")
    world.round("a", "b")
    must(world["a"].may_act(world.now("a")), "does not go on although all is as it should be")


@case("rule 8: a register below what is known, seen twice, stops us", "ignore_rewind")
def rewound(mutations: Mutations) -> None:
    world = mesh(mutations, "abc")
    first = world.hubs["hub"].value
    world.renew("a", "ab")
    world.land("a")
    world.hear("a")
    world.tell("a", "b")
    world.wait(5)
    world.hubs["hub"].value = first
    world.person_forced = True  # the alarm is right
    world.read("a")
    world.round("a", "b")
    world.read("a")
    world.wait(2)
    take(world, "c")


@case("rule 8: one low read alone is no evidence", "alarm_at_first_read")
def a_mirror_lags(mutations: Mutations) -> None:
    world = mesh(mutations, "abc")
    first = world.hubs["hub"].value
    world.renew("a", "ab")
    world.land("a")
    world.hear("a")
    newest, world.hubs["hub"].value = world.hubs["hub"].value, first
    world.read("a")
    world.hubs["hub"].value = newest
    world.read("a")


@case("rule 1: a read is compared with what was known when it began", "compare_read_with_later")
def overtaken_reads(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.begin_read("b")
    world.begin_read("b")
    world.renew("a", "ab")
    world.land("a")
    world.hear("a")
    world.tell("a", "b")
    world.arrive("read", "b")
    world.arrive("read", "b")


@case("rule 8: what does not follow our own record is evidence", "trust_any_successor")
def another_line(mutations: Mutations) -> None:
    world = mesh(mutations, "abc")
    first = world.hubs["hub"].value
    world.renew("a", "abc")
    world.land("a")
    world.hear("a")
    world.hubs["hub"].value = first
    world.person_forced = True
    world.wait(6.2)
    take(world, "c")
    world.tell("c", "a")
    must(world["a"].durable.evidence is not None, "a record of another line is taken for our successor")


@case("rule 8: the highest record seen survives a crash", "forget_newest")
def forgotten_in_a_crash(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.crash("b")


# -- who may contend ---------------------------------------------------------------------------------------


@case("a promise is waited out", "promise_not_waited_out")
def contend_after_promise(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(5)
    world.round("a", "b")
    world.wait(1.2)
    take(world, "b")


@case("no promise for a version when a newer one is known", "promise_for_older")
def promise_for_the_past(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(6.15)
    world.read("a")
    take(world, "b")
    world.crash("b")
    world.round("a", "b")


@case("a benched machine waits bench_ttl", "benched_waits_short")
def impatient_on_the_bench(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.wait(6.2)
    take(world, "c")


@case("a benched machine waits bench_ttl also after a release", "benched_takes_release")
def release_taken_from_the_bench(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.release("a")
    world.land("a")
    world.read("c")
    take(world, "c")


@case("who is in neither list never contends", "outsider_contends")
def removed_machine(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.renew("a", "ab")
    world.land("a")
    world.hear("a")
    world.tell("a", "c")
    world.wait(100)
    take(world, "c")


@case("a token is good for exactly one version", "token_for_any_version")
def token_of_another_version(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.token("a", "b")
    world.arrive("token", "b")
    world.wait(6.2)
    take(world, "a")
    world.tell("a", "b")
    take(world, "b")


@case("a token is good only in the electorate", "token_for_benched")
def token_to_the_bench(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.token("a", "c")
    world.arrive("token", "c")
    take(world, "c")


@case("a takeover leaves the bench where it is", "bench_into_electorate")
def stale_machine_in_the_electorate(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.wait(6.2)
    take(world, "b")


@case("a failover benches the former holder", "former_holder_stays")
def dead_holder_in_the_electorate(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(6.2)
    take(world, "b")
    must(
        world.write("b", 1),
        "after a failover everything waits for the dead machine",
    )


@case("who comes from the bench says whose rows may be missing", "bench_not_incomplete")
def takeover_from_the_bench(mutations: Mutations) -> None:
    world = mesh(mutations, "ab", "c")
    world.write("a", 1, "b")
    world.wait(62)
    take(world, "c")


@case("while an own swap is open, the tighter bound of both records holds", "deadline_of_one_record")
def alone_by_one_record(mutations: Mutations) -> None:
    world = SmallWorld({"a": RIGHT, "c": RIGHT}, mutations=mutations)
    world.found("a")
    world.renew("a", "a", "c")
    world.land("a")
    world.lose_answer("a")
    world.read("c")
    world.wait(62)
    take(world, "c")


@case("a contender counts from when it first saw this version", "first_sight_kept")
def seen_an_older_one(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.wait(3)
    world.renew("a", "ab")
    world.land("a")
    world.hear("a")
    world.tell("a", "b")
    world.wait(3.2)
    take(world, "b")


@case("a released lease is taken at once by the electorate", "release_not_taken")
def waits_for_nobody(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.release("a")
    world.land("a")
    world.read("b")
    must(world.may_contend("b"), "waits although the holder let go")


@case("a token is signed by the holder of its version", "token_from_anybody")
def token_of_a_third(mutations: Mutations) -> None:
    world = mesh(mutations, "abc")
    world["b"].accept_token(known_to(world, "a").version, "c")
    take(world, "b")


@case("a planned handoff keeps the former holder in the electorate", "handoff_benches_holder")
def handed_over(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.token("a", "b")
    world.arrive("token", "b")
    take(world, "b")
    must("a" in known_to(world, "b").record.electorate, "who handed over is benched as if it had died")


@case("rule 1: an own closing is not adopted", "adopt_released")
def closed_and_adopted(mutations: Mutations) -> None:
    world = mesh(mutations)
    world.move("a", "hub2")
    world.land("a")
    world.hear("a")
    must(not world["a"].may_act(world.now("a")), "acts on the record that closed its register")
