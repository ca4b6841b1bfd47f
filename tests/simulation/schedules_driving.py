"""For each rule about what a machine does by itself one schedule that goes wrong without it."""

from __future__ import annotations

from instar_node.coordination.lease_coordinator import AskPromises, ReadHub, SendClosing, SendSwap
from instar_node.coordination.lease_mutations import Mutations
from instar_node.coordination.record import HubPlace
from tests.simulation.cases import RIGHT, Peers, case, driver, known_to, mesh, must, perform, take
from tests.simulation.small_world import SmallWorld


@case("a holder whose disk refuses collects no promises", "collect_when_unable")
def promises_for_a_full_disk(mutations: Mutations) -> None:
    world = mesh(mutations)
    coordinator = driver(world, "a")
    world.wait(1)
    coordinator.able = False
    asked = [e for e in coordinator.tick(world.now("a"), Peers()) if isinstance(e, AskPromises)]
    must(not asked, "a holder that cannot act keeps everybody from taking over")


@case("a holder whose lease does not run out still reads the register", "lone_reads_nothing")
def alone_and_blind(mutations: Mutations) -> None:
    world = SmallWorld({"a": RIGHT}, mutations=mutations)
    world.found("a")
    coordinator = driver(world, "a")
    now, order = world.now("a"), world["a"].order
    must(any(isinstance(e, ReadHub) for e in coordinator.tick(now, Peers())), "does not look at all")
    coordinator.on_read(world.hubs["hub"].value, order, now, now)
    later = now + world.timing.ttl
    must(any(isinstance(e, ReadHub) for e in coordinator.tick(later, Peers())), "does not look again")


@case("who misses promises is benched", "bench_nobody")
def silent_member(mutations: Mutations) -> None:
    world = mesh(mutations)
    coordinator = driver(world, "a")
    for _ in range(2):
        coordinator.on_miss("b")
    perform(world, "a", coordinator.tick(world.now("a"), Peers(there=True)))
    world.wait(50)
    must(world["a"].may_act(world.now("a")), "a machine that died takes the holder with it")


@case("who is benched is taken back only when it has caught up", "take_back_unready")
def taken_back_too_soon(mutations: Mutations) -> None:
    world = mesh(mutations, "a", "b")
    world.write("a", 1)
    coordinator = driver(world, "a")
    coordinator.on_promise("b", known_to(world, "a").version, world.now("a"), world.now("a"))
    perform(world, "a", coordinator.tick(world.now("a"), Peers(there=True)))
    world.tell("a", "b")
    world.wait(6.2)
    take(world, "b")


@case("a joiner begins on the bench", "admit_into_electorate")
def joiner_takes_over(mutations: Mutations) -> None:
    world = SmallWorld({"a": RIGHT, "b": RIGHT}, mutations=mutations)
    world.found("a")
    world.write("a", 1)
    coordinator = driver(world, "a")
    coordinator.membership.wishes.admit.add("b")
    perform(world, "a", coordinator.tick(world.now("a"), Peers(there=True)))
    world.tell("a", "b")
    world.wait(6.2)
    take(world, "b")


@case("while somebody is benched the holder renews by a swap", "no_checkpoint")
def nothing_but_rounds(mutations: Mutations) -> None:
    world = mesh(mutations, "a", "b")
    coordinator = driver(world, "a")
    for _ in range(7):
        world.wait(10)
        perform(world, "a", coordinator.tick(world.now("a"), Peers()))
    must(world["a"].may_act(world.now("a")), "a machine that is away for long ends the holder's lease")


@case("a closing is sent again until it is confirmed", "closing_sent_once")
def closing_lost(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    world.close("a", "b")
    coordinator = driver(world, "a")
    for _ in range(2):
        world.wait(2)
        sent = [e for e in coordinator.tick(world.now("a"), Peers()) if isinstance(e, SendClosing)]
        must(bool(sent), "a closing that was lost leaves nobody awake")


@case("a closer that restarted asks for anything newer before it sends again", "ask_nobody_after_boot")
def closing_of_a_former_life(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    world.close("a", "b")
    world.crash("a")
    coordinator = driver(world, "a")
    sent = [e for e in coordinator.tick(world.now("a"), Peers()) if isinstance(e, SendClosing)]
    must(not sent, "passes on a baton that may have been overruled by force meanwhile")


@case("an embedded holder that restarted asks for anything newer before it acts", "ask_nobody_after_boot")
def back_after_a_force(mutations: Mutations) -> None:
    world = mesh(mutations, baton=True)
    world.crash("a")
    coordinator = driver(world, "a")
    swaps = [e for e in coordinator.tick(world.now("a"), Peers()) if isinstance(e, SendSwap)]
    must(not swaps, "goes on although another may have been forced awake")
    world.wait(6.1)
    perform(world, "a", coordinator.tick(world.now("a"), Peers()))
    must(world["a"].may_act(world.now("a")), "waits for ever for machines that are gone")


@case("what another register than the present one holds is no news", "old_hub_is_news")
def answer_of_the_old_hub(mutations: Mutations) -> None:
    world = mesh(mutations)
    coordinator = driver(world, "a")
    now, before, shown = world.now("a"), world["a"].order, world.hubs["hub"].value
    must(any(isinstance(e, ReadHub) for e in coordinator.tick(now, Peers())), "reads nothing")
    own = known_to(world, "a")
    disk = HubPlace("")
    closing = world["a"].moving_record(disk, reason="", at="", nonce="onto the own disk")
    world["a"].cease(own.version)
    world.send("a", closing, "close", own.version)
    world.land("a")
    world.hear("a")
    coordinator.on_hub_moved(now)
    coordinator.on_read(shown, before, now, now)
    swaps = [e.swap for e in coordinator.tick(now, Peers()) if isinstance(e, SendSwap)]
    must(all(swap.expected is None for swap in swaps), "takes the old hub's value for that of its own disk")
