"""This machine's verified copy of the history: what stands, and taking in what others have. Blocks."""

from __future__ import annotations

import pygit2

from instar_node.errors import InstarError
from instar_node.identity.chain import fold
from instar_node.sync.commit import Commit
from instar_node.sync.repository import StateRepository
from instar_node.sync.rules import Known, Standing, check_line
from instar_node.sync.tree import File


class StateCopy:
    """The verified line. Belongs to the repository's thread; its fields may be read from anywhere."""

    def __init__(self, repository: StateRepository) -> None:
        self.repository = repository
        self.standing: Standing | None = None
        """What holds at the newest verified commit."""
        self.files: dict[str, File] = {}
        """All files at that commit."""
        self._found = ""
        """The commit that was looked for in the line last and is part of it."""

    @property
    def head(self) -> str | None:
        """The newest verified commit."""
        return self.standing.commit if self.standing is not None else None

    def load(self) -> None:
        """Read what was verified before."""
        head = self.repository.head()
        if head is not None:
            self.become(self._standing_at(head))

    def contains(self, commit: str) -> bool:
        """Whether a commit is part of the verified line."""
        return self.head is not None and self.repository.has_line(commit, self.head)

    def surely_has(self, commit: str) -> bool:
        """Whether a commit is known to be part of the verified line without looking; from any thread."""
        return commit in (self._found, self.head)

    def find(self, commit: str) -> bool:
        """Look whether a commit is part of the verified line, and remember that while the line grows."""
        if self.contains(commit):
            self._found = commit
        return self._found == commit

    def writer_before(self, epoch: int) -> str | None:
        """Who wrote the state last before an epoch; ``None`` when nobody did."""
        standing = self.standing
        while standing is not None and standing.epoch >= epoch:
            parents = self.repository.commit(standing.commit).parents
            standing = self._standing_at(parents[0]) if parents else None
        return standing.signer if standing is not None else None

    def accept(self, tip: str, known: Known, vouched: str) -> bool:
        """Take in the line of a commit that is here with all it names, if it breaks no rule.

        ``False`` when it has nothing new. ``vouched`` is a commit that it must contain, empty for none.
        Raises ``InstarError`` with the rule that is broken; then nothing has changed.
        """
        if self.contains(tip):
            return False
        try:
            base = self._base(tip)
        except (pygit2.GitError, KeyError, ValueError) as error:  # its ancestors are missing or no commits
            message = f"the line of {tip[:12]} is not whole: {error}"
            raise InstarError("object-missing", message, status=422, extra={"commit": tip}) from error
        commits = self.repository.line(tip, None if base is None else base.commit)
        steps = [(commit, self.repository.content(commit)) for commit in commits]
        self._check_trees(commits, base)
        standing = check_line(steps, base, self.standing, known)
        if vouched and not self.repository.has_line(vouched, tip):
            raise InstarError(
                "withheld",
                f"the line of {tip[:12]} lacks commit {vouched[:12]}, for which the lease vouches",
                status=422,
                extra={"commit": tip},
            )
        self.become(standing)
        self._found = vouched
        return True

    def judge_own(self, commit: Commit, known: Known) -> Standing:
        """Hold a new commit of our own to the same rules as any other; the head does not move yet."""
        step = (commit, self.repository.content(commit))
        return check_line([step], self.standing, self.standing, known)

    def become(self, standing: Standing) -> None:
        """Make a verified commit the head."""
        files = self.repository.files(standing.commit)
        if standing.commit != self.repository.head():
            self.repository.set_head(standing.commit)
        if self.head is not None and not self.repository.has_line(self.head, standing.commit):
            self._found = ""  # another line, which may lack it
        self.standing, self.files = standing, files

    def _check_trees(self, commits: list[Commit], base: Standing | None) -> None:
        before = None if base is None else base.tree
        for commit in commits:
            self.repository.check(commit.tree, before)
            before = commit.tree

    def _base(self, tip: str) -> Standing | None:
        shared = self.repository.shared(tip)
        if shared is None or self.standing is None or shared == self.standing.commit:
            return self.standing if shared is not None else None
        return self._standing_at(shared)

    def _standing_at(self, oid: str) -> Standing:
        """What holds at a commit that was verified earlier."""
        commit = self.repository.commit(oid)
        content = self.repository.content(commit)
        epoch = commit.epoch
        assert epoch is not None, "a verified commit names its epoch"
        return Standing(
            commit.oid,
            commit.tree,
            epoch,
            commit.committer.machine_id,
            commit.committer.time,
            fold(content.records),
        )
