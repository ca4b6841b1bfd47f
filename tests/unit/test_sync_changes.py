"""What becomes of edits: nothing that somebody wrote is ever lost, whatever the others wrote meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instar_node.sync.changes import ChangeSet, Edit, apply, coalesced, edits_between, overlay
from instar_node.sync.paths import conflict_path, is_reserved, refusal_of
from instar_node.sync.tree import File, build_tree, flatten

PATHS = ("a", "a/b", "a/b/c", "d", "d/e.txt", "notes.md")
CONTENTS = tuple(File(digit * 40) for digit in "123456789")

paths = st.sampled_from(PATHS)
files = st.sampled_from(CONTENTS)


def is_possible(state: dict[str, File]) -> bool:
    """Whether a folder can hold these files: none is also a folder."""
    return not any(other.startswith(f"{path}/") for path in state for other in state)


states = st.dictionaries(paths, files, max_size=4).filter(is_possible)


def never(base: File, ours: File, theirs: File) -> File | None:
    return None


@given(states, states, states)
def test_every_version_written_stands_somewhere(
    base: dict[str, File], ours: dict[str, File], theirs: dict[str, File]
) -> None:
    change = ChangeSet(7, "", edits_between(base, theirs))
    applied = apply(change, ours, "m-mini", "mini", never)
    after = {path: file for path, file in {**ours, **applied.updates}.items() if file is not None}
    assert is_possible(after)
    for edit in change.edits:
        if edit.now is not None:
            assert edit.now in after.values()
    for path, file in ours.items():
        rewritten = base.get(path) == file and theirs.get(path) != file
        assert after.get(path) == file or rewritten
    for conflict in applied.conflicts:
        assert conflict.kept_as is None or conflict.kept_as in after


@given(states, states)
def test_edits_on_what_they_were_made_on_are_simply_taken(
    base: dict[str, File], theirs: dict[str, File]
) -> None:
    applied = apply(ChangeSet(1, "", edits_between(base, theirs)), base, "m", "mini", never)
    after = {path: file for path, file in {**base, **applied.updates}.items() if file is not None}
    assert (after, applied.conflicts) == (theirs, ())
    again = apply(ChangeSet(2, "", edits_between(base, theirs)), theirs, "m", "mini", never)
    assert (again.updates, again.conflicts) == ({}, ())


@given(states, states, states)
def test_two_looks_in_a_row_are_as_good_as_one(
    base: dict[str, File], first: dict[str, File], second: dict[str, File]
) -> None:
    one = ChangeSet(1, "", edits_between(base, first))
    both = coalesced(one, edits_between(first, second), "later")
    assert overlay(base, [both]) == second
    assert {edit.path for edit in both.edits} == {edit.path for edit in edits_between(base, second)}
    two = ChangeSet(2, "", edits_between(first, second))
    assert overlay(base, [one, two]) == second


def test_a_conflict_copy_lies_beside_its_file_under_a_free_name() -> None:
    assert conflict_path("a/notes.md", "mini", 7, set()) == "a/notes.conflict-mini-7.md"
    assert conflict_path("Makefile", "mini", 7, set()) == "Makefile.conflict-mini-7"
    assert conflict_path(".profile", "mini", 7, set()) == ".profile.conflict-mini-7"
    taken = {"x.conflict-mini-7.md", "x.conflict-mini-7-2.md/inner"}
    assert conflict_path("x.md", "mini", 7, taken) == "x.conflict-mini-7-3.md"


def test_an_edit_of_a_file_that_is_a_folder_elsewhere_is_kept_beside_it() -> None:
    base = File("1" * 40)
    change = ChangeSet(3, "", (Edit("a/b", None, base), Edit("d", None, base)))
    applied = apply(change, {"a": base, "d/e": base}, "m", "mini", never)
    assert applied.updates == {"a.conflict-mini-3/b": base, "d.conflict-mini-3": base}


def test_names_that_lead_out_or_hide_are_refused() -> None:
    for path in (
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        "a/.git/config",
        ".Git",
        "git~1",
        "a\0b",
    ):
        assert refusal_of(path) is not None, path
    for path in (".gitignore", "ü x.md", "a.b", "🙂/…", "git~2", "-rf"):
        assert refusal_of(path) is None, path
    assert is_reserved("Machines/x")
    assert not is_reserved("notes/machines/x")


@given(st.dictionaries(paths, files, max_size=6).filter(is_possible))
def test_a_state_is_read_from_git_as_it_was_written(state: dict[str, File]) -> None:
    stored: dict[str, bytes] = {}

    def write(raw: bytes) -> str:
        oid = f"{len(stored):040x}"
        stored[oid] = raw
        return oid

    assert flatten(build_tree(state, write), stored.__getitem__) == state
