"""The signed registry: what it records, what it refuses, and which of two chains stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from identity_support import ManualClock, founded, joined, new_identity

from instar_node.errors import InstarError
from instar_node.identity.chain import RegistryRecord, fold, mesh_id_of
from instar_node.identity.drafts import draft, identity_draft, signed_next
from instar_node.identity.nicknames import check_nickname, free_nickname, nickname_from_host
from instar_node.identity.registry import MachineRegistry


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def desk(tmp_path: Path, clock: ManualClock) -> MachineRegistry:
    return founded(tmp_path, "desk", clock)


def refuses(records: list[RegistryRecord] | tuple[RegistryRecord, ...], why: str) -> None:
    with pytest.raises(InstarError, match=why) as refusal:
        fold(records)
    assert refusal.value.code == "registry-refused"


def test_the_first_machine_founds_the_mesh_and_is_its_member(desk: MachineRegistry) -> None:
    [member] = desk.active()
    assert member.nickname == "desk"
    assert member.admitted_by == member.machine_id
    assert desk.mesh_id == mesh_id_of(desk.records[0])


def test_a_second_founding_or_adoption_in_one_home_is_refused(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    with pytest.raises(InstarError) as refusal:
        founded(tmp_path, "desk", clock)
    assert refusal.value.code == "registry-exists"


def test_everything_survives_a_reload(tmp_path: Path, clock: ManualClock, desk: MachineRegistry) -> None:
    lap = new_identity(tmp_path, "lap")
    desk.admit(lap.public, "lap", ["http://10.0.0.2:7707"], epoch=2, witness=True)
    desk.rename(lap.machine_id, "Mini", epoch=2)
    desk.set_urls(lap.machine_id, ["http://10.0.0.3:7707"], epoch=3)
    again = MachineRegistry.load(tmp_path / "desk" / "machine", new_identity(tmp_path, "desk"), clock)
    assert again is not None
    assert again.active() == desk.active()
    assert (again.head, again.mesh_id, again.epoch) == (desk.head, desk.mesh_id, 3)
    member = again.resolve("mini")
    assert member is not None
    assert (member.witness, member.urls) == (True, ("http://10.0.0.3:7707",))
    assert (tmp_path / "desk" / "machine" / "registry.json").stat().st_mode & 0o777 == 0o600


def test_no_registry_means_no_mesh_yet(tmp_path: Path, clock: ManualClock) -> None:
    assert MachineRegistry.load(tmp_path, new_identity(tmp_path, "x"), clock) is None


@pytest.mark.parametrize("content", [b"{", b'{"records": []}', b'{"records": [{"n": 0}]}'])
def test_a_damaged_file_is_refused_naming_it(tmp_path: Path, clock: ManualClock, content: bytes) -> None:
    (tmp_path / "registry.json").write_bytes(content)
    with pytest.raises(InstarError) as refusal:
        MachineRegistry.load(tmp_path, new_identity(tmp_path, "x"), clock)
    assert str(tmp_path / "registry.json") in refusal.value.message
    assert refusal.value.hint


def test_members_are_found_by_nickname_in_any_case_or_by_id(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap = joined(tmp_path, "Lap", desk, clock)
    lap_id = lap.active()[1].machine_id
    for name in ("lap", "LAP", lap_id):
        found = desk.resolve(name)
        assert found is not None
        assert found.machine_id == lap_id
    assert desk.resolve("nobody") is None
    assert desk.nickname("m_unknown") == "m_unknown"


def test_a_taken_nickname_gets_a_free_suffix_when_joining(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    for name in ("one", "two"):
        desk.admit(new_identity(tmp_path, name).public, "DESK", [], epoch=1)
    assert [member.nickname for member in desk.active()] == ["desk", "DESK-2", "DESK-3"]


def test_renaming_to_a_taken_nickname_is_refused_but_changing_case_is_not(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap = joined(tmp_path, "lap", desk, clock)
    lap_id = lap.active()[1].machine_id
    with pytest.raises(InstarError) as refusal:
        desk.rename(lap_id, "Desk", epoch=1)
    assert refusal.value.code == "nickname-taken"
    assert desk.rename(lap_id, "LAP", epoch=1).nickname == "LAP"


def test_nothing_new_makes_no_record(desk: MachineRegistry) -> None:
    me = desk.active()[0]
    desk.rename(me.machine_id, "desk", epoch=1)
    desk.set_urls(me.machine_id, [], epoch=1)
    assert len(desk.records) == 1


@pytest.mark.parametrize("how", ["remove", "leave"])
def test_gone_is_gone_for_good(tmp_path: Path, clock: ManualClock, desk: MachineRegistry, how: str) -> None:
    lap = new_identity(tmp_path, "lap")
    desk.admit(lap.public, "lap", [], epoch=1)
    getattr(desk, how)(lap.machine_id, epoch=1)
    member = desk.get(lap.machine_id)
    assert member is not None
    assert member.removed
    assert desk.resolve("lap") is None
    assert lap.machine_id not in [active.machine_id for active in desk.active()]
    with pytest.raises(InstarError) as refusal:
        desk.admit(lap.public, "lap", [], epoch=1)
    assert refusal.value.code == "removed-machine"
    with pytest.raises(InstarError) as refusal:
        desk.rename(lap.machine_id, "other", epoch=1)
    assert refusal.value.code == "unknown-machine"


def test_its_nickname_is_free_again(tmp_path: Path, clock: ManualClock, desk: MachineRegistry) -> None:
    lap = new_identity(tmp_path, "lap")
    desk.admit(lap.public, "lap", [], epoch=1)
    desk.remove(lap.machine_id, epoch=1)
    assert desk.admit(new_identity(tmp_path, "new").public, "lap", [], epoch=1).nickname == "lap"


def test_a_member_cannot_be_admitted_twice(tmp_path: Path, clock: ManualClock, desk: MachineRegistry) -> None:
    lap = new_identity(tmp_path, "lap")
    desk.admit(lap.public, "lap", [], epoch=1)
    with pytest.raises(InstarError) as refusal:
        desk.admit(lap.public, "lap", [], epoch=1)
    assert refusal.value.code == "already-member"


def test_a_failed_write_changes_nothing_and_tells_nobody(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    desk.on_change(lambda: told.append(1))

    def full(*_: object) -> None:
        raise InstarError("disk-full", "full")

    monkeypatch.setattr("instar_node.identity.registry.write_atomic", full)
    with pytest.raises(InstarError):
        desk.admit(new_identity(tmp_path, "lap").public, "lap", [], epoch=1)
    assert len(desk.active()) == 1
    assert told == []


def test_changes_are_announced_when_they_are_on_disk(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    on_disk: list[int] = []
    path = tmp_path / "desk" / "machine" / "registry.json"
    desk.on_change(lambda: on_disk.append(path.read_text().count('"kind"')))
    desk.admit(new_identity(tmp_path, "lap").public, "lap", [], epoch=1)
    assert on_disk == [2]


# -- what a reader refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nickname", "evil"),
        ("urls", ("http://evil",)),
        ("witness", True),
        ("at", "2000-01-01T00:00:00.000Z"),
        ("epoch", 9),
        ("machine_id", "m_" + "0" * 32),
        ("encryption_public", b"x" * 32),
        ("signature", b"x" * 64),
        ("by", "m_" + "0" * 32),
        ("kind", "remove"),
        ("prev", "0" * 64),
        ("n", 2),
    ],
)
def test_a_record_altered_anywhere_is_refused(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry, field: str, value: object
) -> None:
    desk.admit(new_identity(tmp_path, "lap").public, "lap", [], epoch=1)
    altered = msgspec.structs.replace(desk.records[1], **{field: value})
    refuses([desk.records[0], altered], "registry record")
    with pytest.raises(InstarError):
        desk.merge([desk.records[0], altered])


def test_a_record_left_out_is_noticed(tmp_path: Path, clock: ManualClock, desk: MachineRegistry) -> None:
    desk.admit(new_identity(tmp_path, "lap").public, "lap", [], epoch=1)
    desk.admit(new_identity(tmp_path, "mini").public, "mini", [], epoch=1)
    refuses([desk.records[0], desk.records[2]], "does not follow")
    refuses(desk.records[1:], "does not follow")


Forge = Callable[[RegistryRecord, int], RegistryRecord]


@pytest.fixture
def stranger_signs(tmp_path: Path, desk: MachineRegistry) -> Forge:
    stranger = new_identity(tmp_path, "stranger")
    return lambda record, epoch: signed_next(record, fold(desk.records), stranger, "now", epoch)


@pytest.fixture
def desk_signs(tmp_path: Path, desk: MachineRegistry) -> Forge:
    """Well signed and well linked: only the rules themselves can refuse it."""
    identity = new_identity(tmp_path, "desk")
    return lambda record, epoch: signed_next(record, fold(desk.records), identity, "now", epoch)


def test_a_record_by_a_stranger_is_refused(
    tmp_path: Path, desk: MachineRegistry, stranger_signs: Forge
) -> None:
    public = new_identity(tmp_path, "stranger").public
    refuses(
        (*desk.records, stranger_signs(identity_draft("admit", public, "x", [], False), 1)), "not a member"
    )


def test_a_record_by_a_removed_machine_is_refused(
    tmp_path: Path, desk: MachineRegistry, stranger_signs: Forge
) -> None:
    stranger = new_identity(tmp_path, "stranger").public
    desk.admit(stranger, "s", [], epoch=1)
    desk.remove(stranger.machine_id, epoch=1)
    own = desk.active()[0].machine_id
    refuses((*desk.records, stranger_signs(draft("remove", own), 1)), "not a member")


def test_an_epoch_that_goes_back_is_refused(tmp_path: Path, desk: MachineRegistry, desk_signs: Forge) -> None:
    me = desk.active()[0].machine_id
    desk.rename(me, "new", epoch=5)
    fold((*desk.records, desk_signs(draft("rename", me, nickname="newer"), 5)))
    refuses(
        (*desk.records, desk_signs(draft("rename", me, nickname="newer"), 4)), "goes back from epoch 5 to 4"
    )


def test_an_admission_whose_id_or_keys_do_not_belong_together_is_refused(
    tmp_path: Path, desk: MachineRegistry, desk_signs: Forge
) -> None:
    one, two = new_identity(tmp_path, "one").public, new_identity(tmp_path, "two").public
    wrong_id = msgspec.structs.replace(one, machine_id=two.machine_id)
    wrong_key = msgspec.structs.replace(one, encryption_public=two.encryption_public)
    for public in (wrong_id, wrong_key):
        record = desk_signs(identity_draft("admit", public, "x", [], False), 1)
        refuses((*desk.records, record), "false identity")


def test_bad_and_duplicate_nicknames_are_refused_by_every_reader(
    tmp_path: Path, desk: MachineRegistry, desk_signs: Forge
) -> None:
    public = new_identity(tmp_path, "one").public
    for nickname, why in (
        ("DESK", "takes the nickname"),
        ("a\x1b[31m", "bad nickname"),
        ("", "bad nickname"),
    ):
        record = desk_signs(identity_draft("admit", public, nickname, [], False), 1)
        refuses((*desk.records, record), why)


def test_records_about_strangers_and_a_second_genesis_are_refused(
    tmp_path: Path, desk: MachineRegistry, desk_signs: Forge
) -> None:
    public = new_identity(tmp_path, "one").public
    for kind in ("rename", "urls", "remove", "leave"):
        record = desk_signs(draft(kind, public.machine_id, nickname="x"), 1)
        refuses((*desk.records, record), "not a member")
    refuses((*desk.records, desk_signs(identity_draft("genesis", public, "x", [], False), 1)), "the first")


def test_a_second_admission_or_a_change_of_a_removed_machine_is_refused_by_every_reader(
    tmp_path: Path, desk: MachineRegistry, desk_signs: Forge
) -> None:
    public = new_identity(tmp_path, "one").public
    desk.admit(public, "one", [], epoch=1)
    refuses(
        (*desk.records, desk_signs(identity_draft("admit", public, "x", [], False), 1)), "is or was a member"
    )
    desk.remove(public.machine_id, epoch=1)
    refuses(
        (*desk.records, desk_signs(identity_draft("admit", public, "x", [], False), 1)), "is or was a member"
    )
    refuses((*desk.records, desk_signs(draft("rename", public.machine_id, nickname="x"), 1)), "not a member")


def test_a_well_signed_record_that_names_another_predecessor_is_refused(
    tmp_path: Path, desk: MachineRegistry
) -> None:
    me = desk.active()[0].machine_id
    elsewhere = msgspec.structs.replace(fold(desk.records), head="0" * 64)
    record = signed_next(
        draft("rename", me, nickname="x"), elsewhere, new_identity(tmp_path, "desk"), "now", 1
    )
    refuses((*desk.records, record), "does not follow")


def test_a_genesis_signed_by_another_is_refused(tmp_path: Path) -> None:
    one, two = new_identity(tmp_path, "one"), new_identity(tmp_path, "two")
    record = signed_next(identity_draft("genesis", one.public, "x", [], False), None, two, "now", 1)
    refuses([record], "not signed by the machine that founds")


def test_adoption_needs_the_mesh_of_the_exchange_and_an_admission(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap = new_identity(tmp_path, "lap")
    folder = tmp_path / "lap" / "machine"
    with pytest.raises(InstarError, match="does not admit"):
        MachineRegistry.adopt(folder, lap, clock, desk.records, desk.mesh_id)
    desk.admit(lap.public, "lap", [], epoch=1)
    with pytest.raises(InstarError, match="another mesh"):
        MachineRegistry.adopt(folder, lap, clock, desk.records, "mesh_other")
    assert not (folder / "registry.json").exists()
    assert MachineRegistry.adopt(folder, lap, clock, desk.records, desk.mesh_id).active() == desk.active()


# -- two copies -----------------------------------------------------------------------------------------


def test_a_continuation_is_adopted_and_an_older_copy_is_not(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap = joined(tmp_path, "lap", desk, clock)
    old = lap.records
    desk.admit(new_identity(tmp_path, "mini").public, "mini", [], epoch=1)
    assert lap.merge(desk.records)
    assert lap.active() == desk.active()
    assert not lap.merge(old)
    assert not lap.merge(desk.records)
    assert lap.refusals == 0


def parted(tmp_path: Path, clock: ManualClock, desk: MachineRegistry) -> tuple[MachineRegistry, str]:
    """``lap`` holding a copy, and the id of a third machine ``mini``; both may then write apart."""
    mini = new_identity(tmp_path, "mini").public
    desk.admit(mini, "mini", [], epoch=1)
    return joined(tmp_path, "lap", desk, clock), mini.machine_id


def test_of_two_parted_chains_the_higher_epoch_stands_on_both_sides(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap, mini = parted(tmp_path, clock, desk)
    desk.rename(mini, "one", epoch=1)
    desk.rename(mini, "two", epoch=1)
    lap.rename(mini, "three", epoch=2)
    low, high = desk.records, lap.records
    assert not lap.merge(low)
    assert desk.merge(high)
    assert desk.nickname(mini) == lap.nickname(mini) == "three"


def test_chains_parted_in_one_epoch_converge(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap, mini = parted(tmp_path, clock, desk)
    desk.rename(mini, "one", epoch=1)
    lap.rename(mini, "two", epoch=1)
    ours, theirs = desk.records, lap.records
    assert desk.merge(theirs) != lap.merge(ours)
    assert desk.records == lap.records


def test_no_chain_of_whatever_epoch_undoes_a_removal(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap, mini = parted(tmp_path, clock, desk)
    desk.remove(mini, epoch=1)
    lap.rename(mini, "returned", epoch=1_000_000)
    with pytest.raises(InstarError, match="brings back"):
        desk.merge(lap.records)
    assert desk.refusals == 1
    assert "brings back" in desk.last_refusal
    # the side whose chain stands learns whom to remove again, and then its chain is taken everywhere
    assert not lap.merge(desk.records)
    assert lap.buried_in(desk.records) == (mini,)
    lap.remove(mini, epoch=1_000_000)
    assert desk.merge(lap.records)
    member = desk.get(mini)
    assert member is not None
    assert member.removed


def test_a_removed_machine_cannot_rewrite_the_past(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    lap, _ = parted(tmp_path, clock, desk)
    me, lap_id = desk.active()[0].machine_id, lap.active()[2].machine_id
    desk.remove(lap_id, epoch=1)
    lap.remove(me, epoch=1_000_000)  # from before its removal, with an epoch that outranks everything
    with pytest.raises(InstarError, match="which was removed"):
        desk.merge(lap.records)
    with pytest.raises(InstarError, match="which was removed"):
        desk.buried_in(lap.records)
    assert desk.resolve("desk") is not None


def test_a_chain_of_another_mesh_is_refused(
    tmp_path: Path, clock: ManualClock, desk: MachineRegistry
) -> None:
    other = founded(tmp_path, "other", clock, epoch=99)
    with pytest.raises(InstarError, match="another mesh"):
        desk.merge(other.records)
    with pytest.raises(InstarError):
        desk.merge([])
    assert desk.refusals == 2


# -- nicknames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "nickname"),
    [
        ("desk.example.org", "desk"),
        ("Janas MacBook", "Janas-MacBook"),
        ("--", "machine"),
        ("", "machine"),
        ("büro", "büro"),
        ("x" * 60, "x" * 40),
        ("m_" + "0" * 32, "machine"),
        ("here", "machine"),
    ],
)
def test_nickname_from_the_host_name(host: str, nickname: str) -> None:
    assert nickname_from_host(host) == nickname
    assert check_nickname(nickname) == nickname


@pytest.mark.parametrize(
    "bad", ["", " a", "a ", "a\n", "x" * 41, "[red]x", "a/b", "m_" + "f" * 32, "\u202eabc", "Here", "back"]
)
def test_nicknames_that_could_mislead_are_refused(bad: str) -> None:
    with pytest.raises(InstarError) as refusal:
        check_nickname(bad)
    assert refusal.value.extra == {"field": "nickname"}


def test_a_free_nickname_stays_within_the_length() -> None:
    assert free_nickname("a", []) == "a"
    assert free_nickname("A", ["a", "A-2"]) == "A-3"
    assert free_nickname("bu\u0308ro", ["Büro"]) == "bu\u0308ro-2"
    assert free_nickname("x" * 40, ["X" * 40]) == "x" * 38 + "-2"
