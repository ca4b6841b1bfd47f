"""Which commits are believed: every rule, with the commit that breaks it and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from instar_node.errors import InstarError
from instar_node.sync.commit import Commit, Person, signed_commit
from instar_node.sync.rules import Standing
from instar_node.sync.tree import EXECUTABLE, FOLDER, PLAIN, Entry, encode_tree
from tests.unit.sync_support import TIME, Author


@pytest.fixture
def author(tmp_path: Path) -> Author:
    return Author(tmp_path)


def refused(author: Author, *commits: Commit, base: Standing | None = None) -> str:
    with pytest.raises(InstarError) as caught:
        author.judge(*commits, base=base)
    return caught.value.code


def test_a_line_over_two_epochs_is_believed(author: Author) -> None:
    one = author.commit(None, {"notes.md": b"one"})
    two = author.commit(one, {"notes.md": b"two"}, author=Person("mini", author.mini.machine_id, TIME + 1))
    three = author.commit(two, {"notes.md": b"three"}, by=author.mini, epoch=2)
    standing = author.judge(one, two, three)
    assert (standing.commit, standing.epoch, standing.signer) == (three.oid, 2, author.mini.machine_id)
    assert author.judge(three, base=author.judge(one, two)) == standing


def test_an_unsigned_commit_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    raw = author.commit(one, {}).payload
    unsigned = author.repository.commit(author.repository.write("commit", raw))
    assert refused(author, unsigned, base=author.judge(one)) == "unsigned"


def test_a_commit_altered_after_signing_is_refused(author: Author) -> None:
    one = author.commit(None, {"a": b"1"})
    raw = author.repository.read(one.oid)[1].replace(b"changed something", b"changed otherwise")
    altered = author.repository.commit(author.repository.write("commit", raw))
    assert refused(author, altered) == "bad-signature"


def test_a_commit_by_a_stranger_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    alien = author.commit(one, {}, by=author.stranger)
    assert refused(author, alien, base=author.judge(one)) == "not-a-member"


def test_a_commit_in_another_machines_name_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    person = Person("desk", author.desk.machine_id, TIME + 5)
    lying = author.commit(one, {}, by=author.mini, epoch=2, committer=person)
    assert refused(author, lying, base=author.judge(one)) == "wrong-committer"


def test_an_author_who_never_was_a_member_is_refused(author: Author) -> None:
    person = Person("x", author.stranger.machine_id, TIME)
    assert refused(author, author.commit(None, {}, author=person)) == "unknown-author"


def test_a_member_that_did_not_hold_the_epoch_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    base = author.judge(one)
    assert refused(author, author.commit(one, {}, by=author.server, epoch=2), base=base) == "not-holder"
    assert refused(author, author.commit(one, {}, by=author.mini, epoch=1), base=base) == "not-holder"
    author.holders.clear()  # this reader never heard who held which epoch: the record must show it
    borrowed = author.lease(author.mini, 2)
    false = author.commit(one, {}, by=author.server, epoch=2, lease=borrowed)
    assert refused(author, false, base=base) == "not-holder"
    forged = author.lease(author.server, 2).replace(
        author.server.machine_id.encode(), author.mini.machine_id.encode()
    )
    false = author.commit(one, {}, by=author.mini, epoch=2, lease=forged)
    assert refused(author, false, base=base) == "not-holder"
    assert author.judge(author.commit(one, {}, by=author.mini, epoch=2), base=base).epoch == 2


def test_two_machines_in_one_epoch_are_refused_also_when_nobody_knows_who_held_it(author: Author) -> None:
    one = author.commit(None, {})
    author.holders.clear()
    second = author.commit(one, {}, by=author.mini, epoch=1)
    assert refused(author, second, base=author.judge(one)) == "not-holder"


def test_an_epoch_the_lease_has_not_come_to_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    ahead = author.commit(one, {}, by=author.server, epoch=3)
    assert refused(author, ahead, base=author.judge(one)) == "epoch-ahead"


def test_an_epoch_is_named_and_never_falls(author: Author) -> None:
    one = author.commit(None, {}, by=author.mini, epoch=2)
    base = author.judge(one)
    assert refused(author, author.commit(one, {}, epoch=1), base=base) == "stale-epoch"
    payload = one.payload.replace(b"Instar-Epoch: 2\n", b"")
    nameless = author.mini.sign_commit(payload)
    oid = author.repository.write("commit", signed_commit(payload, nameless))
    assert refused(author, author.repository.commit(oid)) == "no-epoch"


def test_a_backdated_commit_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    old = Person("desk", author.desk.machine_id, TIME - 1)
    assert refused(author, author.commit(one, {}, committer=old), base=author.judge(one)) == "backdated"


def test_a_commit_of_another_mesh_is_refused(author: Author, tmp_path: Path) -> None:
    assert refused(author, author.commit(None, {}, mesh_id="mesh_other")) == "foreign-mesh"
    (tmp_path / "other").mkdir()
    other = Author(tmp_path / "other")
    assert refused(author, author.commit(None, {}, records=other.registry.records)) == "foreign-mesh"


def test_merges_and_commits_beside_the_line_are_refused(author: Author) -> None:
    one = author.commit(None, {})
    two = author.commit(one, {"a": b"1"})
    beside = author.commit(one, {"a": b"2"})
    assert refused(author, beside, base=author.judge(one, two)) == "not-in-line"
    payload = two.payload.replace(b"\nauthor", f"\nparent {beside.oid}\nauthor".encode(), 1)
    merge = author.repository.write("commit", signed_commit(payload, author.desk.sign_commit(payload)))
    assert refused(author, author.repository.commit(merge), base=author.judge(one)) == "not-in-line"


def test_a_forged_registry_entry_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    base = author.judge(one)
    *earlier, last = author.registry.records
    forged = (*earlier, msgspec.structs.replace(last, nickname="evil"))
    assert refused(author, author.commit(one, {}, records=forged), base=base) == "forged-registry"
    intruder = msgspec.structs.replace(
        last,
        n=last.n + 1,
        prev=last.hash(),
        machine_id=author.stranger.machine_id,
        signing_public=author.stranger.public.signing_public,
        nickname="intruder",
    )
    planted = (*author.registry.records, intruder)
    assert refused(author, author.commit(one, {}, records=planted), base=base) == "forged-registry"
    shorter = author.registry.records[:-1]
    assert refused(author, author.commit(one, {}, records=shorter), base=base) == "registry-rewound"


def test_a_removed_machines_commits_stand_only_before_its_removal(author: Author) -> None:
    before = author.registry.records
    one = author.commit(None, {}, by=author.mini, epoch=2, records=before)
    author.registry.remove(author.mini.machine_id, epoch=2)
    late = author.commit(one, {"late": b"x"}, by=author.mini, epoch=2, records=before)
    assert refused(author, late) == "not-in-line"
    assert refused(author, one, late) == "removed-signer"
    author.holders[3], author.newest_epoch = author.desk.machine_id, 3
    buried = author.commit(one, {}, by=author.desk, epoch=3)
    assert author.judge(one, buried).epoch == 3
    after = author.commit(buried, {}, by=author.mini, epoch=3)
    assert refused(author, after, base=author.judge(one, buried)) == "not-a-member"
    revived = author.commit(buried, {}, by=author.desk, epoch=3, records=before)
    assert refused(author, revived, base=author.judge(one, buried)) == "registry-rewound"


def test_a_rewound_or_exchanged_history_is_refused(author: Author) -> None:
    one = author.commit(None, {})
    two = author.commit(one, {"a": b"1"})
    base, head = author.judge(one), author.judge(one, two)
    other = author.commit(None, {"a": b"another beginning"}, by=author.mini, epoch=2)
    for commits, start, code in (
        ([], base, "rewound"),
        ([author.commit(one, {"a": b"2"})], base, "forked"),
        ([other], None, "foreign-history"),
    ):
        with pytest.raises(InstarError) as caught:
            author.judge(*commits, base=start, head=head)
        assert caught.value.code == code


def test_only_the_holder_of_a_later_epoch_parts_from_the_line(author: Author) -> None:
    one = author.commit(None, {})
    lost = author.commit(one, {"a": b"never arrived"})
    base, head = author.judge(one), author.judge(one, lost)
    fence = author.commit(one, {}, by=author.mini, epoch=2)
    assert author.judge(fence, base=base, head=head).commit == fence.oid
    again = author.commit(one, {"a": b"another"})
    stranger = author.commit(one, {}, by=author.server, epoch=2)
    for commit, code in ((again, "forked"), (stranger, "forked")):
        with pytest.raises(InstarError) as caught:
            author.judge(commit, base=base, head=head)
        assert caught.value.code == code
    with pytest.raises(InstarError) as caught:
        author.judge(lost, base=base, head=author.judge(fence, base=base, head=head))
    assert caught.value.code == "outranked"
    del author.holders[2]
    with pytest.raises(InstarError) as caught:
        author.judge(fence, base=base, head=head)
    assert caught.value.code == "epoch-ahead"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([Entry("link", "120000", "")], "symbolic link"),
        ([Entry("module", "160000", "")], "submodule"),
        ([Entry(".git", PLAIN, "")], "git keeps"),
        ([Entry(".GIT\u200c", PLAIN, "")], "git keeps"),
        ([Entry("git~1", PLAIN, "")], "git keeps"),
        ([Entry("..", PLAIN, "")], "outside"),
        ([Entry("a\nb", PLAIN, "")], "control"),
        ([Entry("a", "100666", "")], "mode"),
        ([Entry("a/b", PLAIN, "")], "malformed"),
        ([Entry("b", PLAIN, ""), Entry("a", PLAIN, "")], "order"),
        ([Entry("x" * 300, PLAIN, "")], "too long"),
    ],
)
def test_a_tree_with_anything_but_harmless_plain_files_is_refused(
    author: Author, entries: list[Entry], words: str
) -> None:
    blob = author.repository.write("blob", b"x")
    raw = b"".join(encode_tree([msgspec.structs.replace(entry, oid=blob)]) for entry in entries)
    tree = author.repository.write("tree", raw)
    inner = author.repository.write("tree", encode_tree([Entry("sub", FOLDER, tree)]))
    for whole in (tree, inner):
        with pytest.raises(InstarError, match=words):
            author.repository.check(whole, None)


def test_folders_without_end_are_refused(author: Author) -> None:
    blob = author.repository.write("blob", b"x")
    tree = author.repository.write("tree", encode_tree([Entry("f", EXECUTABLE, blob)]))
    for _ in range(60):
        tree = author.repository.write("tree", encode_tree([Entry("d", FOLDER, tree)]))
    with pytest.raises(InstarError) as caught:
        author.repository.check(tree, None)
    assert caught.value.code == "bad-tree"
