"""What works without a running node: whoami, machines, config, doctor."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from instar_node.api import types as t
from instar_node.clock import SystemClock
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry
from instar_node.storage.home import Home
from instar_node.wiring.mesh_file import MeshFile, write_mesh_file
from tests.unit.fake_api import FakeNodeApi, a_machine
from tests.unit.served import Cli, home_at, serving


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_at(tmp_path)


@pytest.fixture
def cli(home: Home, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(home, capsys)


@pytest.fixture
def founded(home: Home, tmp_path: Path) -> MachineIdentity:
    """A home whose mesh has two machines."""
    identity = MachineIdentity.load_or_create(home.machine)
    clock = SystemClock()
    registry = MachineRegistry.found(home.machine, identity, clock, "desk", ["http://desk:7707"], epoch=0)
    other = MachineIdentity.load_or_create(tmp_path / "other")
    registry.admit(other.public, "mini", [], epoch=1)
    return identity


def test_whoami_reads_the_files(cli: Cli, founded: MachineIdentity) -> None:
    me = cli("whoami", "--json").json
    assert me["machine_id"] == founded.machine_id
    assert me["nickname"] == "desk"
    assert me["fingerprint"] == founded.public.fingerprint
    assert me["role"] is None
    assert me["mesh_id"].startswith("mesh_")
    assert "no node runs here" in cli("whoami").out


def test_whoami_names_the_hub_of_the_mesh_whatever_the_settings_say(
    cli: Cli, founded: MachineIdentity
) -> None:
    cli.home.config.write_text('[hub]\nurl = "https://me:secret@example.net/other.git"\n')
    assert cli("whoami", "--json").json["hub"] == "https://me:…@example.net/other.git"
    for recorded, shown in (
        ("https://me:secret@example.net/mesh.git", "https://me:…@example.net/mesh.git"),
        ("", str(cli.home.hub)),
        (f"witness:{founded.machine_id}", "witness:desk"),
    ):
        write_mesh_file(cli.home, MeshFile(recorded))
        assert cli("whoami", "--json").json["hub"] == shown


def test_whoami_of_a_new_home_says_what_makes_an_identity(cli: Cli) -> None:
    ran = cli("whoami", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "no-identity")
    assert "start instar-tui" in ran.err


def test_machines_reads_the_registry(cli: Cli, founded: MachineIdentity) -> None:
    desk, mini = cli("machines", "--json").json["machines"]
    assert (desk["nickname"], desk["is_self"], desk["online"]) == ("desk", True, False)
    assert (mini["nickname"], mini["is_self"], mini["status"]) == ("mini", False, "offline")
    assert "not known: no node runs here" in cli("machines").out


def test_a_node_that_crashed_leaves_whoami_working(cli: Cli, founded: MachineIdentity) -> None:
    with serving(FakeNodeApi(), cli.home):
        left_behind = cli.home.api_json.read_bytes()
    cli.home.api_json.write_bytes(left_behind)
    assert cli("whoami").code == 0


def test_config_is_set_checked_and_read_back(cli: Cli) -> None:
    assert cli("config", "set", "lease.ttl_ms", "9000").code == 0
    assert cli("config", "get", "lease.ttl_ms").out == "9000\n"
    assert cli("config", "get", "lease.ttl_ms", "--json").json == {"lease.ttl_ms": 9000}
    assert cli("config", "set", "agent.command", '["a", "b c"]').code == 0
    assert cli("config", "get", "agent.command").out == '["a","b c"]\n'
    lines = cli("config", "get").out.splitlines()
    assert any(line.split() == ["lease.ttl_ms", "9000"] for line in lines)
    assert cli("config", "get", "--json").json["lease"]["ttl_ms"] == 9000


def test_a_bad_setting_is_refused_with_its_place(cli: Cli) -> None:
    cli("config", "set", "lease.ttl_ms", "9000")
    before = cli.home.config.read_text()
    ran = cli("config", "set", "lease.ttl_ms", "100", "--json")
    assert (ran.code, ran.json["error"]["key"]) == (1, "lease.round_ms")
    assert cli.home.config.read_text() == before
    assert "did you mean lease.ttl_ms?" in cli("config", "set", "lease.ttl", "1").err


def test_the_log_level_is_a_setting_of_its_own(cli: Cli) -> None:
    assert cli("log-level").out == "info\n"
    assert cli("log-level", "debug").out == "debug\n"
    assert cli("config", "get", "node.log_level").out == "debug\n"
    assert cli("log-level", "loud").code == 2


def test_a_running_node_is_told_the_log_level(cli: Cli) -> None:
    api = FakeNodeApi()
    with serving(api, cli.home):
        assert cli("log-level", "debug").code == 0
    assert api.calls[-1] == ("set_config", (t.ConfigChange("node.log_level", "debug"),))


# -- doctor -----------------------------------------------------------------------------------------------


def states(cli: Cli) -> dict[str, str]:
    return {finding["check"]: finding["state"] for finding in cli("doctor", "--json").json["findings"]}


def test_a_well_home_without_a_node_is_healthy_with_a_warning(cli: Cli, founded: MachineIdentity) -> None:
    assert cli("doctor").code == 0
    assert states(cli) == {
        "settings": "ok", "keys": "ok", "registry": "ok", "database": "ok", "disk": "ok", "node": "warning",
    }  # fmt: skip
    assert "2 records, all signatures good; 2 machines" in cli("doctor").out


def test_a_new_home_is_no_problem(cli: Cli) -> None:
    assert cli("doctor").code == 0
    assert states(cli)["keys"] == "warning"


def test_an_exposed_key_is_a_problem_with_the_command_that_mends_it(
    cli: Cli, founded: MachineIdentity
) -> None:
    (cli.home.machine / "signing.key").chmod(0o644)
    ran = cli("doctor")
    assert ran.code == 1
    assert f"chmod 600 {cli.home.machine / 'signing.key'}" in ran.out
    assert states(cli)["keys"] == "problem"


def test_bad_settings_and_a_damaged_database_are_problems(cli: Cli, founded: MachineIdentity) -> None:
    cli.home.config.write_text("[lease]\nttl = 1\n")
    cli.home.database.write_bytes(b"not a database, certainly" * 100)
    found = states(cli)
    assert (found["settings"], found["database"]) == ("problem", "problem")
    assert cli("doctor").code == 1


def test_a_small_database_has_a_size_that_says_something(cli: Cli, founded: MachineIdentity) -> None:
    with closing(sqlite3.connect(cli.home.database)) as database:
        database.execute("CREATE TABLE one (text TEXT)")
    assert "opens, 1 table, 8.2 kB" in cli("doctor").out


def test_a_forged_registry_is_a_problem(cli: Cli, founded: MachineIdentity) -> None:
    path = cli.home.machine / "registry.json"
    path.write_text(path.read_text().replace('"mini"', '"evil"'))
    assert states(cli)["registry"] == "problem"


def test_what_the_running_node_knows_is_looked_at(cli: Cli, founded: MachineIdentity) -> None:
    api = FakeNodeApi()
    with serving(api, cli.home):
        assert cli("doctor").code == 0
        assert states(cli)["hub"] == "ok"

        async def machines() -> object:
            gone = a_machine("m_3", "attic", online=False, status="offline", status_text="offline for 2h")
            return t.Machines([a_machine(), gone])

        api.machines = machines  # type: ignore[method-assign, assignment]
        out = cli("doctor").out
    assert "! machine    attic: offline for 2h" in out
    assert "is instar-tui running on attic" in out
    assert "! alert      there is no automatic failover" in out
    assert "failover   mini would take over by itself" in out
