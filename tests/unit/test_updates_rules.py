"""Versions as rules: who is held back, what a restart came to, and in which order machines are updated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instar_node.build import SEAM, Build, spoken, this_build
from instar_node.coordination.fenced_lease import FencedLease
from instar_node.coordination.lease_state import LeaseTiming
from instar_node.coordination.record import KnownRecord
from instar_node.errors import InstarError
from instar_node.updates.compatibility import held_back
from instar_node.updates.installed import install
from instar_node.updates.restart_handshake import Restart, UpdateRestartHandshake, compare
from instar_node.updates.rolling import Standing, order, successor

OLD, BRIDGE, NEW = Build("1.0", (1, 1)), Build("1.5", (1, 2)), Build("2.0", (2, 2))


def test_the_seam_stands_in_for_the_programs_own_numbers(tmp_path: Path) -> None:
    file = tmp_path / "build.json"
    file.write_text(json.dumps({"version": "9.9", "protocol": [3, 4]}))
    assert this_build({SEAM: str(file)}) == Build("9.9", (3, 4))
    assert this_build({}).version != "9.9"
    assert (spoken((3, 4)), spoken((2, 2))) == ("3–4", "2")


@pytest.mark.parametrize(
    ("machine", "awake", "held"),
    [(OLD, OLD, False), (BRIDGE, OLD, False), (NEW, BRIDGE, False), (NEW, OLD, True), (None, OLD, False)],
)
def test_who_shares_no_protocol_with_the_awake_machine_is_held_back(
    machine: Build | None, awake: Build, held: bool
) -> None:
    reason = held_back(machine, awake)
    assert (reason is not None) == held
    if reason is not None:
        assert reason == ("held back: version 2.0 speaks protocol 2, the awake machine's 1.0 speaks 1")


# -- the lease -----------------------------------------------------------------------------------------------

TIMING = LeaseTiming(6_000_000, 2_000_000, 120_000_000, 0.01)


def known_by(
    build: Build | None, holder_build: Build | None, *, holder: str = "desk", **changes: object
) -> FencedLease:
    """``mini`` knows a record of a holder that runs ``holder_build``."""
    author = FencedLease(holder, "one", TIMING, build=holder_build)
    record = author.founding_record(at="", nonce="n")
    fields = {"electorate": ("desk", "mini"), **changes}
    for name, value in fields.items():
        record = type(record)(**{**{f: getattr(record, f) for f in record.__struct_fields__}, name: value})
    lease = FencedLease("mini", "two", TIMING, build=build)
    lease.learn(KnownRecord(record, "v1"), 0)
    return lease


@pytest.mark.parametrize(
    "where", [{"electorate": ("desk", "mini")}, {"benched": ("mini",), "electorate": ("desk",)}]
)
def test_a_program_never_follows_one_that_it_shares_no_protocol_with(where: dict[str, object]) -> None:
    assert known_by(NEW, OLD, **where).may_contend_at(10**12) == "incompatible"
    assert isinstance(known_by(BRIDGE, OLD, **where).may_contend_at(10**12), int)
    assert isinstance(known_by(None, OLD, **where).may_contend_at(10**12), int)


def test_an_incompatible_successor_declines_the_baton() -> None:
    closing = {"state": "closed", "successor": "mini"}
    for build, refusal in ((NEW, "incompatible"), (BRIDGE, None)):
        lease = known_by(build, OLD, **closing)
        assert lease.known is not None
        assert lease.may_open(lease.known) == refusal


def test_a_machine_always_follows_itself_and_says_what_it_runs_then() -> None:
    lease = known_by(NEW, OLD, holder="mini", electorate=("mini",))
    assert isinstance(lease.may_contend_at(10**12), int)
    assert lease.contender_record(reason="restarted", at="", nonce="m").build == NEW


# -- the restart ---------------------------------------------------------------------------------------------


def test_a_restart_that_came_up_as_intended_is_done() -> None:
    assert compare(Restart("2.0", "1.0", ""), "2.0").state == "done"


def test_a_restart_that_did_not_take_is_counted_and_escalates_until_it_does(tmp_path: Path) -> None:
    path = tmp_path / "handshake.json"
    UpdateRestartHandshake(path).intend("2.0", "1.0", "then")
    states = []
    for running in ("1.0", "1.0", "2.0", "1.0"):
        handshake = UpdateRestartHandshake(path)
        handshake.verify(running)
        assert handshake.last is not None
        states.append((handshake.last.state, handshake.last.attempts, handshake.last.escalated))
    # Going back later, by whatever means, is no failure of the update.
    assert states == [("failed", 1, False), ("failed", 2, True), ("done", 2, False), ("done", 2, False)]


def test_without_an_intent_there_is_nothing_to_compare_and_a_damaged_file_keeps_nobody_from_starting(
    tmp_path: Path,
) -> None:
    path = tmp_path / "handshake.json"
    assert UpdateRestartHandshake(path).verify("1.0") is None
    path.write_text("{")
    assert UpdateRestartHandshake(path).verify("1.0") is None


def test_staying_with_what_runs_ends_the_complaint(tmp_path: Path) -> None:
    path = tmp_path / "handshake.json"
    handshake = UpdateRestartHandshake(path)
    handshake.intend("2.0", "1.0", "then")
    handshake.verify("1.0")
    handshake.forget_failure()
    assert UpdateRestartHandshake(path).verify("1.0") is None


# -- the order -----------------------------------------------------------------------------------------------


def standing(name: str, build: Build | None = OLD, **changes: bool) -> Standing:
    facts = {"online": True, "witness": False, "in_sync": True, **changes}
    return Standing(f"m-{name}", name, facts["online"], facts["witness"], facts["in_sync"], build)


def test_the_least_useful_machine_goes_first_and_who_is_away_is_left_out() -> None:
    machines = [standing("b"), standing("A"), standing("late", in_sync=False), standing("off", online=False)]
    assert [machine.nickname for machine in order(machines)] == ["late", "A", "b"]


def test_the_role_goes_to_an_updated_machine_in_sync_that_can_take_over() -> None:
    candidates = [
        standing("away", BRIDGE, online=False),
        standing("behind", BRIDGE, in_sync=False),
        standing("keeper", BRIDGE, witness=True),
        standing("old", OLD),
        standing("unheard", None),
        standing("zeta", BRIDGE),
    ]
    found = successor(candidates, "1.5", OLD.protocol)
    assert found is not None
    assert found.nickname == "zeta"
    assert successor([standing("new", NEW)], "2.0", OLD.protocol) is None


async def test_an_install_command_that_fails_says_what_it_said() -> None:
    await install(())
    await install(("true",))
    with pytest.raises(InstarError) as caught:
        await install(("sh", "-c", "echo no such package; exit 3"))
    assert caught.value.code == "not-installed"
    assert "status 3: no such package" in caught.value.message
    with pytest.raises(InstarError) as caught:
        await install(("no-such-program-here",))
    assert "No such file" in caught.value.message
