"""Results and gates as rules: what counts, for which versions, and what a person's word does."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from instar_node.build import Build
from instar_node.errors import InstarError
from instar_node.verification.components import COMPONENTS, needed_for
from instar_node.verification.gates import Override, Overrides, Subject, Verdict, check_gate, judge, refusal
from instar_node.verification.report import DrillReport, StepResult
from instar_node.verification.results import KEPT_A_PAIR, ResultStore

OLD, NEW = Build("1.0", (1, 1)), Build("2.0", (1, 2))
DESK, MINI = "m-desk", "m-mini"
HERE = Subject(DESK, OLD, MINI, OLD)


def sign(purpose: str, data: bytes) -> bytes:
    return sha256(purpose.encode() + data).digest()


def verify(machine: str, purpose: str, data: bytes, signature: bytes) -> bool:
    return machine in (DESK, MINI) and signature == sign(purpose, data)


def report(
    *steps: StepResult, runner: str = DESK, n: int = 1, epoch: int = 1, **changes: object
) -> DrillReport:
    peer = MINI if runner == DESK else DESK
    plain = DrillReport(runner, peer, epoch, n, "then", False, OLD, OLD, steps, 1.0)
    return msgspec.structs.replace(plain, **changes).signed(sign)


def step(component: str, passed: bool = True) -> StepResult:
    return StepResult(component, passed, "evidence" if passed else "it lies", 1.0)


def store_at(folder: Path) -> ResultStore:
    return ResultStore(folder / "verification.json", verify)


def state(store: ResultStore, component: str = "tunnel", subject: Subject = HERE) -> str:
    found = store.decisive(component, DESK, MINI)
    return judge(subject, found, store.overrides.gates.get(component)).state


def test_what_nobody_tried_is_open_and_says_that_it_is_unverified(tmp_path: Path) -> None:
    verdict = judge(HERE, None, None)
    assert (verdict.state, verdict.lets_through) == ("unverified", True)


def test_the_newest_drill_counts_whichever_machine_ran_it(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add([report(step("tunnel", passed=False), n=1)])
    assert state(store) == "shut"
    store.add([report(step("tunnel"), runner=MINI, epoch=2)])
    assert state(store) == "open"
    store.add([report(step("tunnel", passed=False), n=9)])  # epoch 1: older, whatever its number
    assert state(store) == "open"


def test_a_component_the_newest_drill_did_not_decide_keeps_its_older_result(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add([report(step("tunnel"), step("lease", passed=False)), report(step("tunnel"), n=2)])
    assert (state(store, "tunnel"), state(store, "lease")) == ("open", "shut")


@pytest.mark.parametrize("subject", [Subject(DESK, NEW, MINI, OLD), Subject(DESK, OLD, MINI, NEW)])
def test_a_result_is_only_for_the_versions_that_ran(tmp_path: Path, subject: Subject) -> None:
    store = store_at(tmp_path)
    store.add([report(step("tunnel", passed=False))])
    assert state(store, subject=subject) == "unverified"
    assert (
        state(store, subject=Subject(DESK, OLD, MINI, None)) == "shut"
    )  # not heard yet: the last word stands


def test_a_result_that_was_tampered_with_is_shown_and_counts_for_nothing(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add([report(step("tunnel", passed=False))])
    path = tmp_path / "verification.json"
    path.write_text(path.read_text().replace('"passed": false', '"passed": true'))
    again = store_at(tmp_path)
    (shown,) = again.reports
    assert not again.is_authentic(shown)
    assert again.decisive("tunnel", DESK, MINI) is None
    assert not again.add([msgspec.structs.replace(report(step("tunnel")), signature=bytes(64))])
    assert not again.add([report(step("tunnel"), runner="m-stranger")])


def test_results_survive_on_disk_and_only_the_newest_few_of_a_pair_are_kept(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    for n in range(1, 9):
        assert store.add([report(step("tunnel"), n=n)])
        assert not store.add([report(step("tunnel"), n=n)])
    again = store_at(tmp_path)
    assert [one.n for one in again.reports] == [8, 7, 6, 5][:KEPT_A_PAIR]
    assert again.next_n(DESK, 1) == 9
    assert again.next_n(DESK, 2) == 1


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "verification.json").write_text("{")
    with pytest.raises(InstarError) as caught:
        store_at(tmp_path)
    assert caught.value.code == "file-damaged"
    assert "verification.json" in caught.value.message


def test_a_persons_word_goes_above_what_drills_show(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add([report(step("tunnel", passed=False))])
    opened = Overrides().changed("tunnel", Override("open", DESK, "now"), DESK, 1).signed(sign)
    assert store.set_overrides(opened)
    assert state(store) == "overridden"
    shut = opened.changed("tunnel", Override("shut", MINI, "now"), DESK, 1).signed(sign)
    assert store.set_overrides(shut)
    assert state(store_at(tmp_path)) == "shut"
    assert not store.set_overrides(opened)  # older
    assert not store.set_overrides(msgspec.structs.replace(opened, epoch=5))  # not signed like this
    assert store.set_overrides(shut.changed("tunnel", None, MINI, 2).signed(sign))
    assert (store.overrides.order, store.overrides.gates) == ((2, 1), {})


def test_the_first_shut_gate_is_named_and_only_uses_that_need_it_are_refused() -> None:
    verdicts = {component.name: Verdict("unverified", "") for component in COMPONENTS}
    assert refusal("handoff", "mini", verdicts) is None
    verdicts["handoff"] = Verdict("shut", "its drill failed: no ack")
    error = refusal("handoff", "mini", verdicts)
    assert error is not None
    assert error.extra == {"gate": "handoff", "why": "its drill failed: no ack"}
    assert refusal("succession", "mini", verdicts) is None  # a failover needs no handoff
    assert refusal("transfer", "mini", verdicts) is None
    verdicts["tunnel"] = Verdict("shut", "it lies")
    errors = [refusal(use, "mini", verdicts) for use in ("succession", "handoff", "transfer")]
    assert [error and error.extra["gate"] for error in errors] == ["tunnel"] * 3


def test_every_component_guards_something_and_unknown_gates_are_refused() -> None:
    assert all(component.guards for component in COMPONENTS)
    assert "handoff" not in needed_for("succession")
    assert check_gate("tunnel") == "tunnel"
    with pytest.raises(InstarError) as caught:
        check_gate("warp")
    assert caught.value.status == 404
