"""Edits travel: from the awake machine to all, from a standby once and in order, whoever is awake next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from instar_node.storage.atomic import disk_full
from instar_node.sync.paths import MAX_FILE_BYTES
from tests.unit.sync_support import git
from tests.unit.sync_world import a_world, until


@pytest.mark.parametrize("hub", [False, True], ids=["tunnels", "hub"])
async def test_edits_of_both_machines_arrive_through_a_change_of_holder(tmp_path: Path, hub: bool) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=hub) as (world, desk, mini):
        desk.write("notes/plan ü.md", "one\n")
        mini.write("from mini.txt", "two\n")
        await until(lambda: desk.read("from mini.txt") == "two\n" and mini.read("notes/plan ü.md") == "one\n")
        await world.in_step()
        world.elect(mini)
        desk.write("notes/plan ü.md", "one\nmore\n")
        (mini.state / "from mini.txt").unlink()
        await until(lambda: mini.read("notes/plan ü.md") == "one\nmore\n")
        await until(lambda: desk.read("from mini.txt") is None)
        await world.in_step()
        assert desk.files() == {"notes/plan ü.md": b"one\nmore\n"}


async def test_a_thousand_files_binary_deleted_and_renamed_arrive(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini") as (world, desk, mini):
        wanted = {f"d {n % 7}/f{n}.bin": bytes([n % 256]) * n + b"\0\xff\n" for n in range(1_000)}
        for path, data in wanted.items():
            mini.write(path, data)
        os.chmod(mini.state / "d 0/f0.bin", 0o700)
        await until(lambda: len(desk.files()) == 1_000, lambda: len(desk.files()), within=60)
        await world.in_step()
        assert desk.files() == wanted
        assert os.access(desk.state / "d 0/f0.bin", os.X_OK)
        assert not os.access(desk.state / "d 0/f7.bin", os.X_OK)
        (desk.state / "d 1").rename(desk.state / "renamed")
        os.remove(desk.state / "d 2" / "f2.bin")
        await until(lambda: not (mini.state / "d 1").exists() and not (mini.state / "d 2/f2.bin").exists())
        await world.in_step()
        assert (mini.state / "renamed" / "f1.bin").read_bytes() == wanted["d 1/f1.bin"]


async def test_edits_made_alone_wait_through_a_restart_and_arrive_once(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        world.net.cut(desk.id, mini.id)
        mini.write("a.md", "first\n")
        await until(lambda: len(mini.facts.queue) == 1)
        mini.write("a.md", "first\nsecond\n")
        mini.write("b.md", "other\n")
        await until(lambda: {e.path for c in mini.facts.queue for e in c.edits} == {"a.md", "b.md"})
        await mini.sync.stop()
        mini.write("c.md", "while it was off\n")
        await mini.start()
        await until(lambda: {e.path for c in mini.facts.queue for e in c.edits} == {"a.md", "b.md", "c.md"})
        assert desk.files() == {}
        world.net.mend(desk.id, mini.id)
        await until(lambda: len(desk.files()) == 3)
        await world.in_step()
        assert desk.read("a.md") == "first\nsecond\n"
        assert not desk.facts.conflicts


async def test_a_standby_that_becomes_awake_takes_its_own_queue_in(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        world.net.cut(desk.id, mini.id)
        mini.write("a.md", "alone\n")
        await until(lambda: len(mini.facts.queue) == 1)
        desk.lease.valid = False
        world.elect(mini, deaf=(desk,))
        await until(lambda: not mini.facts.queue)
        assert desk.read("a.md") is None
        world.net.mend(desk.id, mini.id)
        desk.lease.valid = True
        desk.lease.hear()
        await until(lambda: desk.read("a.md") == "alone\n")
        await world.in_step()


async def test_a_holder_that_hangs_over_an_offer_keeps_the_standby_from_nothing(tmp_path: Path) -> None:
    def waiting() -> set[str]:
        return {edit.path for change in mini.facts.queue for edit in change.edits}

    async with a_world(tmp_path, "desk", "mini") as (world, desk, mini):
        async with desk.sync._core.lock:
            mini.write("a.md", "offered\n")
            await until(lambda: mini.sync._follower._offering is not None)
            mini.write("b.md", "after it\n")
            await until(lambda: waiting() == {"a.md", "b.md"})
            desk.lease.valid = False
            world.elect(mini, deaf=(desk,))
            await until(lambda: mini.facts.writes and not mini.facts.queue, lambda: mini.facts)
        desk.lease.hear()
        await world.in_step()
        assert desk.files() == {"a.md": b"offered\n", "b.md": b"after it\n"}
        assert not mini.facts.conflicts


async def test_what_hangs_at_one_holder_is_offered_to_the_next(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", "nas") as (world, desk, mini, nas):
        async with desk.sync._core.lock:
            mini.write("a.md", "offered twice\n")
            await until(lambda: mini.sync._follower._offering is not None)
            desk.lease.valid = False
            world.elect(nas, deaf=(desk,))
            await until(lambda: nas.read("a.md") == "offered twice\n", lambda: nas.facts)
        desk.lease.hear()
        await world.in_step()
        assert desk.files() == {"a.md": b"offered twice\n"}


async def test_the_last_edits_of_a_holder_that_lost_the_lease_are_not_lost(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=False) as (world, desk, mini):
        desk.write("shared.md", "both\n")
        await until(lambda: mini.read("shared.md") == "both\n")
        await world.in_step()
        world.net.cut(desk.id, mini.id)
        desk.write("late.md", "written where nobody saw it\n")
        await until(lambda: desk.facts.files > mini.facts.files and desk.facts.head == desk.facts.published)
        lost = desk.facts.head
        world.elect(mini, 1_000_000, deaf=(desk,))
        mini.write("new.md", "of the new epoch\n")
        await until(lambda: mini.facts.epoch == 1_000_000)
        desk.lease.hear()
        world.net.mend(desk.id, mini.id)
        await until(lambda: mini.read("late.md") == "written where nobody saw it\n")
        await world.in_step()
        assert desk.read("new.md") == "of the new epoch\n"
        assert not desk.facts.refused
        aside = desk.sync._core.copy.repository.git.references
        assert f"refs/instar/aside/{lost}" in list(aside)


async def test_changes_that_do_not_touch_are_merged_and_real_conflicts_keep_both(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini") as (world, desk, mini):
        desk.write("plan.md", "".join(f"line {n}\n" for n in range(9)))
        desk.write("word.txt", "base\n")
        desk.write("gone.txt", "base\n")
        await until(lambda: len(mini.files()) == 3)
        await world.in_step()
        world.net.cut(desk.id, mini.id)
        desk.write("plan.md", "top\n" + "".join(f"line {n}\n" for n in range(9)))
        mini.write("plan.md", "".join(f"line {n}\n" for n in range(9)) + "bottom\n")
        desk.write("word.txt", "desk's\n")
        mini.write("word.txt", "mini's\n")
        desk.write("gone.txt", "still needed\n")
        (mini.state / "gone.txt").unlink()
        await until(lambda: sum(len(change.edits) for change in mini.facts.queue) == 3)
        await until(lambda: desk.facts.head == desk.facts.published != mini.facts.head)
        world.net.mend(desk.id, mini.id)
        await until(lambda: len(desk.facts.conflicts) == 2)
        await world.in_step()
        number = mini.facts.queue[0].number if mini.facts.queue else 1
        assert desk.files() == {
            "plan.md": ("top\n" + "".join(f"line {n}\n" for n in range(9)) + "bottom\n").encode(),
            "word.txt": b"desk's\n",
            f"word.conflict-mini-{number}.txt": b"mini's\n",
            "gone.txt": b"still needed\n",
        }
        assert any("changed on two machines" in event.text for event in desk.told)


async def test_links_oversize_files_and_bad_names_stay_here_and_are_named(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini") as (_, desk, mini):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("not for sharing\n")
        desk.write("real.md", "shared\n")
        (desk.state / "link").symlink_to(outside / "secret")
        (desk.state / "linked").symlink_to(outside)
        (desk.state / "clone" / ".git").mkdir(parents=True)
        desk.write("clone/.git/config", "x")
        with (desk.state / "huge.bin").open("wb") as huge:
            huge.truncate(MAX_FILE_BYTES + 1)
        os.mkfifo(desk.state / "pipe")
        desk.write("scratch.tmp", "ignored\n")
        desk.write(".gitignore", "private/\n")
        desk.write("private/diary.md", "ignored too\n")
        await until(lambda: mini.read(".gitignore") == "private/\n" and mini.read("real.md") == "shared\n")
        await until(lambda: desk.facts.head == mini.facts.head)
        assert set(mini.files()) == {"real.md", ".gitignore"}
        left = desk.facts.left_out
        assert set(left) == {"link", "linked", "clone/.git", "huge.bin", "pipe"}
        assert "symbolic link" in left["link"]
        assert "16 MiB" in left["huge.bin"]


async def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini") as (world, desk, mini):
        outside = tmp_path / "outside"
        outside.mkdir()
        (mini.state / "notes").symlink_to(outside)
        await until(lambda: "notes" in mini.facts.left_out)
        desk.write("notes/a.md", "from desk\n")
        await until(lambda: "notes/a.md" in mini.facts.unwritten)
        assert list(outside.iterdir()) == []
        (mini.state / "notes").unlink()
        desk.write("b.md", "later\n")
        await until(lambda: mini.read("notes/a.md") == "from desk\n")
        await world.in_step()
        assert mini.facts.unwritten == {}


async def test_what_a_person_does_with_git_or_rm_in_the_folder_does_no_harm(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini") as (world, desk, mini):
        desk.write("a.md", "one\n")
        await until(lambda: mini.read("a.md") == "one\n")
        await world.in_step()
        assert git(mini.state, "status", "--porcelain").stdout == ""
        mini.write("b.md", "committed by hand\n")
        git(mini.state, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qam", "x", "--allow-empty")
        await until(lambda: desk.read("b.md") == "committed by hand\n")
        await world.in_step()
        shutil.rmtree(mini.state)
        await mini.sync.flush(5)
        await until(lambda: any("has been written anew" in event.text for event in mini.told))
        await world.in_step()
        assert set(mini.files()) == {"a.md", "b.md"}
        (mini.state / "machines" / f"{desk.id}.json").write_text("forged")
        await until(lambda: any("belongs to the mesh itself" in event.text for event in mini.told))
        assert "forged" not in (mini.state / "machines" / f"{desk.id}.json").read_text()
        assert desk.files() == mini.files()


async def test_without_a_git_hub_a_record_vouches_for_what_every_machine_in_sync_has_taken_in(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, "desk", "mini", "nas") as (world, desk, mini, nas):
        world.net.cut(desk.id, nas.id)
        desk.write("a.md", "for all\n")
        await until(lambda: mini.facts.head == desk.facts.head and mini.read("a.md") is not None)
        assert desk.sync.vouched != desk.facts.head
        world.net.mend(desk.id, nas.id)
        await until(lambda: desk.sync.vouched == desk.facts.head == nas.facts.head)


async def test_a_line_that_grows_past_what_the_lease_vouches_for_never_seems_to_lack_it(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        world.lease.state_head = desk.sync.vouched
        world.elect(desk, world.lease.epoch)
        await until(lambda: mini.sync.current)
        at_each_head = []
        mini.on_event = lambda event: at_each_head.append(mini.sync.current) if "head" in event.data else None
        for number in range(3):
            desk.write(f"{number}.md", "x\n")
            await until(lambda number=number: mini.read(f"{number}.md") is not None)
        await until(lambda: len(at_each_head) >= 3)
        assert all(at_each_head)


async def test_what_a_new_record_vouches_for_is_found_while_the_sync_waits_for_a_hub(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        earlier = desk.facts.head
        desk.write("a.md", "x\n")
        await until(lambda: mini.facts.head == desk.facts.head != earlier)
        async with mini.sync._core.lock:
            world.lease.state_head = earlier
            world.elect(desk, world.lease.epoch)
            assert not mini.sync.current
            await until(lambda: mini.sync.current)


async def test_a_successor_from_the_bench_gets_the_last_checkpoint(tmp_path: Path) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        desk.markers.left = {"1-0": b'[["k1",8,1,3]]\n'}
        world.lease.benched = True
        desk.sync._wake.set()
        await until(lambda: (mini.state / ".instar/markers/1-0.json").is_file())
        desk.markers.left = {"1-0": b'[["k1",8,1,3],["k2",8,1,9]]\n'}
        await until(lambda: b"k2" in (mini.state / ".instar/markers/1-0.json").read_bytes())
        await until(lambda: desk.sync.vouched == desk.facts.head)
        world.lease.benched, world.lease.incomplete = False, True
        world.elect(mini)
        await until(lambda: mini.markers.by == desk.id)
        assert mini.markers.taken == {".instar/markers/1-0.json": desk.markers.left["1-0"]}
        await until(lambda: not (mini.state / ".instar/markers").exists())
        await world.in_step()


async def test_a_secret_that_could_not_be_stored_at_first_stays_in_the_state_under_the_next_holder(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path, "desk", "mini", hub=True) as (world, desk, mini):
        refused: list[Mapping[str, bytes]] = []

        def refuse(files: Mapping[str, bytes]) -> None:
            refused.append(files)
            raise disk_full(mini.home.path)

        mini.learn_secrets = refuse
        desk.own_files["secrets/TOKEN.json"] = b"sealed\n"
        desk.sync.look_again()
        await until(lambda: refused)
        mini.learn_secrets = mini.own_files.update
        await desk.sync.stop()
        world.elect(mini)
        mini.write("from mini.txt", "one\n")
        await until(lambda: mini.own_files == {"secrets/TOKEN.json": b"sealed\n"})
        await until(lambda: mini.facts.writes and not mini.facts.queue)
        await world.in_step(mini)
        assert (mini.state / "secrets" / "TOKEN.json").read_bytes() == b"sealed\n"
