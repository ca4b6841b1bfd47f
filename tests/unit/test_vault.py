"""The vault on one machine: what is sealed for whom, what is believed, what the file holds."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_support import ManualClock, founded, joined, new_identity

from instar_node.errors import InstarError
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry
from instar_node.identity.sealing import Place, new_data_key, open_value, seal_value, unwrap, wrap_for
from instar_node.identity.secret_record import SecretRecord
from instar_node.identity.vault import MAX_SECRETS, Vault
from instar_node.known_secrets import KnownSecrets

VALUE = "correct horse battery staple"


class Mesh:
    """Three machines of one mesh, each with its vault; ``desk`` is the holder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.registry = founded(folder, "desk", self.clock)
        self.desk = self.vault_of("desk", self.registry)
        self.mini = self.vault_of("mini", joined(folder, "mini", self.registry, self.clock))
        self.lap = self.vault_of("lap", joined(folder, "lap", self.registry, self.clock))

    def identity(self, name: str) -> MachineIdentity:
        return new_identity(self.folder, name)

    def vault_of(self, name: str, registry: MachineRegistry) -> Vault:
        return Vault.load(self.folder / name / "machine", self.identity(name), registry, self.clock)

    def id(self, name: str) -> str:
        return self.identity(name).machine_id

    def everything(self) -> list[SecretRecord]:
        return self.desk.newer_than({})


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


def test_a_secret_is_kept_over_a_restart_and_its_file_holds_no_trace_of_it(mesh: Mesh) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    file = mesh.folder / "desk" / "machine" / "vault.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert VALUE.encode() not in file.read_bytes()
    again = mesh.vault_of("desk", mesh.registry)
    assert (again.names(), again.value("TOKEN")) == (["TOKEN"], VALUE)


def test_every_reader_opens_what_the_holder_sealed(mesh: Mesh) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    mesh.desk.realign(1, 9)
    fresh = MachineRegistry.load(mesh.folder / "lap" / "machine", mesh.identity("lap"), mesh.clock)
    assert fresh is not None
    lap = mesh.vault_of("lap", fresh)
    assert lap.merge(mesh.everything()) == []
    assert lap.value("TOKEN") == VALUE
    assert lap.digest == mesh.desk.digest


def test_a_witness_is_no_reader(mesh: Mesh) -> None:
    witness = mesh.identity("nas")
    mesh.registry.admit(witness.public, "nas", [], epoch=1, witness=True)
    record = mesh.desk.set("TOKEN", VALUE, epoch=1)
    assert witness.machine_id not in record.readers
    assert len(record.readers) == 3


def test_who_joins_is_given_what_there_is_and_who_goes_is_shut_out_with_a_new_key(mesh: Mesh) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    before = mesh.desk.record("TOKEN")
    late = mesh.identity("late")
    mesh.registry.admit(late.public, "late", [], epoch=1)
    assert mesh.desk.misfits() == ["TOKEN"]
    (resealed,) = mesh.desk.realign(1, 9)
    assert late.machine_id in resealed.readers
    mesh.registry.remove(mesh.id("lap"), epoch=1)
    (last,) = mesh.desk.realign(1, 9)
    assert mesh.id("lap") not in last.readers
    assert last.exposed_to == (mesh.id("lap"),)
    assert before is not None
    assert len({before.sealed, resealed.sealed, last.sealed}) == 3
    assert mesh.desk.readable_by(mesh.id("lap")) == ["TOKEN"]
    assert mesh.desk.value("TOKEN") == VALUE
    assert mesh.desk.misfits() == []


def test_a_new_value_is_exposed_to_nobody(mesh: Mesh) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    mesh.registry.remove(mesh.id("lap"), epoch=1)
    mesh.desk.realign(1, 9)
    assert mesh.desk.set("TOKEN", "another value", epoch=1).exposed_to == ()
    assert mesh.desk.readable_by(mesh.id("lap")) == []


def test_resealing_is_done_a_few_at_a_time(mesh: Mesh) -> None:
    for n in range(5):
        mesh.desk.set(f"S{n}", VALUE, epoch=1)
    mesh.registry.remove(mesh.id("lap"), epoch=1)
    assert [len(mesh.desk.realign(1, 2)) for _ in range(4)] == [2, 2, 1, 0]


def test_a_removed_secret_stays_removed_when_an_old_copy_comes_back(mesh: Mesh) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    old = mesh.everything()
    mesh.desk.remove("TOKEN", epoch=1)
    assert mesh.desk.merge(old) == []
    assert mesh.desk.names() == []
    assert mesh.desk.value("TOKEN") is None
    assert VALUE in mesh.desk.values(), "what was a secret a moment ago is still blanked out"
    with pytest.raises(InstarError, match="no secret TOKEN"):
        mesh.desk.remove("TOKEN", epoch=1)


def test_of_two_writings_the_later_epoch_counts_whatever_the_version(mesh: Mesh) -> None:
    for n in range(3):
        mesh.desk.set("TOKEN", f"old value {n}", epoch=1)
    stale = mesh.everything()
    mesh.mini._members = mesh.registry  # the machine that took over knows everybody
    assert mesh.mini.set("TOKEN", "new value", epoch=2).version == 1
    assert mesh.mini.merge(stale) == []
    assert mesh.mini.value("TOKEN") == "new value"
    assert mesh.desk.merge(mesh.mini.newer_than({})) == []
    assert mesh.desk.value("TOKEN") == "new value"


@pytest.mark.parametrize("forgery", ["value", "name", "version", "readers", "signer", "outsider", "removed"])
def test_what_no_member_signed_is_refused_and_counted(mesh: Mesh, forgery: str) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    (good,) = mesh.everything()
    change = {
        "value": {"sealed": bytes(len(good.sealed))},
        "name": {"name": "OTHER"},
        "version": {"version": 9},
        "readers": {"wrapped": dict(list(good.wrapped.items())[:1])},
        "signer": {"by": mesh.id("mini")},
        "outsider": {"by": "m_" + "0" * 32},
        "removed": {"removed": True},
    }[forgery]
    forged = msgspec.structs.replace(good, **change)
    other = mesh.vault_of("other", mesh.registry)
    (refusal,) = other.merge([forged])
    assert refusal.code == "secret-refused"
    assert (other.names(), other.refusals) == ([], 1)
    assert other.merge([good]) == []


def test_what_a_removed_machine_signs_is_refused(mesh: Mesh) -> None:
    mesh.mini._members = mesh.registry
    mesh.mini.set("TOKEN", "planted", epoch=9)
    mesh.registry.remove(mesh.id("mini"), epoch=1)
    assert [error.code for error in mesh.desk.merge(mesh.mini.newer_than({}))] == ["secret-refused"]
    assert mesh.desk.names() == []


def test_a_holder_that_was_no_reader_is_given_the_key_by_one_that_is(mesh: Mesh) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    late = mesh.identity("late")
    mesh.registry.admit(late.public, "late", [], epoch=1)
    vault = mesh.vault_of("late", mesh.registry)
    assert vault.merge(mesh.everything()) == []
    assert (vault.value("TOKEN"), vault.locked()) == (None, ["TOKEN"])
    assert vault.realign(2, 9) == [], "what cannot be opened is not thrown away"
    record = vault.record("TOKEN")
    assert record is not None
    key = mesh.desk.share("TOKEN", record.stamp, late.machine_id)
    assert key is not None
    vault.unlock("TOKEN", record.stamp, key)
    assert vault.value("TOKEN") == VALUE
    assert [r.readers for r in vault.realign(2, 9)] == [frozenset(vault.readers())]


def test_no_key_is_shared_with_whoever_is_out(mesh: Mesh) -> None:
    stamp = mesh.desk.set("TOKEN", VALUE, epoch=1).stamp
    mesh.registry.remove(mesh.id("lap"), epoch=1)
    assert mesh.desk.share("TOKEN", stamp, mesh.id("lap")) is None
    assert mesh.desk.share("TOKEN", stamp, mesh.id("mini")) is not None


def test_a_machine_that_is_out_forgets_everything(mesh: Mesh) -> None:
    mesh.desk.set("TOKEN", VALUE, epoch=1)
    mesh.desk.erase()
    assert mesh.desk.names() == []
    assert not (mesh.folder / "desk" / "machine" / "vault.json").exists()


@pytest.mark.parametrize("value", ["", "a\0b", "x" * (32 * 1024 + 1)])
def test_what_no_environment_carries_is_refused(mesh: Mesh, value: str) -> None:
    with pytest.raises(InstarError, match="value"):
        mesh.desk.set("TOKEN", value, epoch=1)


def test_the_vault_is_bounded(mesh: Mesh) -> None:
    for n in range(MAX_SECRETS):
        mesh.desk._records[f"S{n}"] = SecretRecord(f"S{n}", 1, 1, "", "")
    with pytest.raises(InstarError, match="takes no more"):
        mesh.desk.set("ONE_MORE", VALUE, epoch=1)


def test_a_damaged_file_is_named_with_a_way_out(mesh: Mesh) -> None:
    (mesh.folder / "desk" / "machine" / "vault.json").write_bytes(b'{"records": 7}')
    with pytest.raises(InstarError, match=r"vault\.json is damaged") as caught:
        mesh.vault_of("desk", mesh.registry)
    assert "secret set" in caught.value.hint


# -- sealing -------------------------------------------------------------------------------------------------


@given(value=st.text(min_size=1, max_size=200), version=st.integers(1, 2**40))
def test_what_is_sealed_opens_at_its_place_and_nowhere_else(value: str, version: int) -> None:
    place, key = Place("mesh_1", "TOKEN", version), new_data_key()
    nonce, sealed = seal_value(place, key, value)
    assert open_value(place, key, nonce, sealed) == value
    for other in (
        Place("mesh_2", "TOKEN", version),
        Place("mesh_1", "OTHER", version),
        Place("mesh_1", "TOKEN", version + 1),
    ):
        with pytest.raises(InstarError, match="cannot be opened"):
            open_value(other, key, nonce, sealed)


def test_a_wrapped_key_opens_for_its_reader_at_its_place_only(tmp_path: Path) -> None:
    one, two = new_identity(tmp_path, "one"), new_identity(tmp_path, "two")
    place, key = Place("mesh_1", "TOKEN", 1), new_data_key()
    wrapped = wrap_for(place, key, {one.machine_id: one.public.encryption_public})[one.machine_id]
    assert unwrap(place, wrapped, one.machine_id, one.encryption_private) == key
    for where, reader, private in (
        (place, two.machine_id, one.encryption_private),
        (place, one.machine_id, two.encryption_private),
        (Place("mesh_1", "TOKEN", 2), one.machine_id, one.encryption_private),
    ):
        with pytest.raises(InstarError, match="cannot be opened"):
            unwrap(where, wrapped, reader, private)


# -- keeping values out of sight -----------------------------------------------------------------------------


def test_a_value_is_blanked_out_whole_stripped_and_line_by_line() -> None:
    pem = "-----BEGIN X-----\nMIIEowIBAAKCAQEAx\nshort\n-----END X-----\n"
    known = KnownSecrets(lambda: (pem, "  padded value "))
    assert "MIIEow" not in known.blank("only this line leaked: MIIEowIBAAKCAQEAx!")
    assert known.blank("say padded value, please") == "say [redacted:vault], please"
    assert known.blank("short") == "short"


def test_a_structure_is_blanked_out_everywhere() -> None:
    known = KnownSecrets(lambda: ("open-sesame",))
    content = {"open-sesame": ["x open-sesame", {"deep": ("open-sesame", 7)}], "n": 1}
    assert "open-sesame" not in repr(known.blank_all(content))
    assert known.blank_all(content)["n"] == 1
