"""A mesh of three machines with a state repository each, and a pen that writes any commit, true or false."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pygit2
from pygit2.enums import Option

from instar_node.coordination.record import PURPOSE, LeaseRecord, sign_record
from instar_node.identity.chain import RegistryRecord
from instar_node.identity.keys import MachineIdentity
from instar_node.identity.registry import MachineRegistry
from instar_node.sync.commit import Commit, Draft, Person
from instar_node.sync.paths import LEASE_FILE
from instar_node.sync.repository import StateRepository, registry_files
from instar_node.sync.rules import Known, Standing, check_line
from instar_node.sync.tree import File
from instar_node.wiring.lease_proof import prove
from tests.unit.identity_support import ManualClock, founded, new_identity

TIME = 1_700_000_000

pygit2.option(Option.ENABLE_FSYNC_GITDIR, False)  # no test here pulls a plug


class Author:
    """Writes commits into one repository as ``desk`` or anybody else. What is not said follows the last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.registry: MachineRegistry = founded(folder, "desk", self.clock)
        self.desk = MachineIdentity.load(folder / "desk" / "machine")
        self.mini = self._admitted("mini")
        self.server = self._admitted("server")
        self.stranger = new_identity(folder, "stranger")
        self.repository = StateRepository(folder / "state.git", folder / "state")
        self.repository.open()
        self.holders: dict[int, str] = {1: self.desk.machine_id, 2: self.mini.machine_id}
        self.newest_epoch = 2

    def _admitted(self, name: str) -> MachineIdentity:
        identity = new_identity(self.folder, name)
        self.registry.admit(identity.public, name, [], epoch=1)
        return identity

    def lease(self, holder: MachineIdentity, epoch: int) -> bytes:
        """A lease record that ``holder`` signed."""
        record = LeaseRecord(
            epoch=epoch,
            serial=epoch,
            prev=None,
            holder=holder.machine_id,
            incarnation="one",
            electorate=(holder.machine_id,),
            benched=(),
            ttl_ms=6_000,
            bench_ttl_ms=120_000,
        )
        return sign_record(record, lambda data: holder.sign(PURPOSE, self.registry.mesh_id, data)).encode()

    def tree(self, files: dict[str, bytes], records: tuple[RegistryRecord, ...], lease: bytes) -> str:
        contents = {**registry_files(records), LEASE_FILE: lease, **files}
        stored = {path: File(self.repository.write("blob", data)) for path, data in contents.items()}
        return self.repository.store(stored)

    def commit(
        self,
        parent: Commit | None,
        files: dict[str, bytes],
        *,
        by: MachineIdentity | None = None,
        epoch: int = 1,
        records: tuple[RegistryRecord, ...] | None = None,
        lease: bytes | None = None,
        tree: str | None = None,
        signed: bool = True,
        **changes: Any,
    ) -> Commit:
        """A commit by ``by``, true unless told otherwise; ``changes`` replace fields of its draft."""
        signer = by or self.desk
        time = TIME if parent is None else parent.committer.time + 1
        person = Person("name", signer.machine_id, time)
        fields: dict[str, Any] = {
            "tree": tree
            or self.tree(
                files,
                self.registry.records if records is None else records,
                self.lease(signer, epoch) if lease is None else lease,
            ),
            "parent": None if parent is None else parent.oid,
            "author": person,
            "committer": person,
            "subject": "changed something",
            "mesh_id": self.registry.mesh_id,
            "epoch": epoch,
            **changes,
        }
        return self.repository.add(Draft(**fields), signer.sign_commit if signed else lambda payload: "")

    def known(self, registry: MachineRegistry | None = None) -> Known:
        return Known((registry or self.registry).folded, self.newest_epoch, self.holders.get, prove)

    def judge(self, *commits: Commit, base: Standing | None = None, head: Standing | None = None) -> Standing:
        """What the rules say to these commits after ``base``; ``head`` is ``base`` unless given."""
        for commit in commits:
            self.repository.check(commit.tree, None)
        steps = [(commit, self.repository.content(commit)) for commit in commits]
        return check_line(steps, base, head or base, self.known())


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder."""
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
