"""``NodeApi``: the one way in. TUI, commands and HTTP all speak exactly these methods.

Every method raises ``InstarError`` for a refusal. Three things implement it: ``LocalNodeApi`` (inside the
node), ``BridgedNodeApi`` (the TUI, across threads) and ``HttpNodeApi`` (a client of a running daemon).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from instar_node.api import types as t
from instar_node.events import Event


class NodeApi(Protocol):
    """Everything a person or a script can do with a node."""

    async def status(self) -> t.Status:
        """One consistent picture of all that the overview shows."""

    async def health(self) -> t.Health: ...

    async def whoami(self) -> t.WhoAmI: ...
    async def machines(self) -> t.Machines: ...

    async def lease(self) -> t.LeaseView: ...

    async def pair(self, body: t.PairRequest) -> t.PairView:
        """Mint a code; an older one is void. A standby refuses (``not-awake``), naming the awake one."""

    async def pair_view(self) -> t.PairView: ...

    async def pair_cancel(self) -> t.PairView: ...
    async def pair_confirm(self, body: t.PairConfirm) -> t.PairView: ...

    async def join(self, body: t.JoinRequest) -> t.JoinResult: ...

    async def doctor(self) -> t.Doctor:
        """What is wrong on this machine and in its mesh, and how to mend it."""

    async def config(self) -> t.ConfigView:
        """The settings of this home."""

    async def set_config(self, body: t.ConfigChange) -> t.ConfigChanged:
        """Change one setting."""

    async def wakeup(self, body: t.WakeupRequest) -> t.HandoffResult:
        """Make this machine the awake one."""

    async def lease_heal(self, body: t.HealRequest) -> t.HandoffResult:
        """End a split brain: this machine's line goes on, in a generation above all that were seen."""

    async def handoff(self, body: t.HandoffRequest) -> t.HandoffResult:
        """Make another machine the awake one."""

    async def handoff_view(self) -> t.HandoffResult:
        """The handoff under way, or the last one."""

    async def move_hub(self, body: t.HubRequest) -> t.HubMoved:
        """Move the lease to another hub; every machine follows."""

    async def leave(self) -> t.Ok: ...

    async def remove_machine(self, machine: str) -> t.Ok: ...

    async def send(self, body: t.SendRequest) -> t.SendResult:
        """Take a message; answers when it is durable on the whole electorate, never waits for the agent."""

    async def topics(self) -> t.Topics: ...

    async def messages(self, topic: str, after: int = 0, limit: int = 200) -> t.Messages: ...

    async def reply(self, topic: str, body: t.ReplyRequest) -> t.SendResult:
        """A person answers a waiting message (``manual`` agent)."""

    async def outbox(self) -> t.Outbox: ...

    async def outbox_resolve(self, item: str, body: t.OutboxAction) -> t.Ok: ...
    async def livetail(self) -> t.LiveTail: ...

    async def pool(self) -> t.PoolView: ...

    async def pool_machine(self, machine: str) -> t.Machine: ...
    async def rename(self, machine: str, body: t.RenameRequest) -> t.Machine: ...

    async def placement(self, topic: str) -> t.PlacementView: ...

    async def transfer(self, body: t.TransferRequest) -> t.TransferResult:
        """Move a topic to a machine (nickname or id). ``undo`` takes the last transfer of the topic back."""

    async def unpin(self, body: t.UnpinRequest) -> t.PlacementView: ...

    async def sync(self) -> t.SyncView:
        """The shared state, what waits to get into it, and what was kept out of it."""

    async def sync_seen(self) -> t.SyncView:
        """A person has looked at the refusals and conflicts: forget them on this machine."""

    async def secrets(self) -> t.Secrets:
        """Names of the secrets and who can read them; never a value."""

    async def secret(self, name: str) -> t.Secret: ...

    async def set_secret(self, name: str, body: t.SecretValue) -> t.Ok:
        """Keep a secret; answers when every machine in sync has it."""

    async def remove_secret(self, name: str) -> t.Ok: ...

    async def verify(self, body: t.VerifyRequest) -> t.VerifyResult:
        """Run the live drill between the awake machine and the named one, or all others."""

    async def e2e_results(self) -> t.E2EResults:
        """The newest result of every component and pair of machines."""

    async def flags(self) -> t.Flags:
        """Each gate, and why it is open or shut."""

    async def set_flag(self, body: t.FlagChange) -> t.Flags:
        """Open or shut a gate by hand, on the whole mesh, or leave it to the drills again."""

    async def updates(self) -> t.Updates: ...

    async def update(self, body: t.UpdateRequest) -> t.UpdateResult:
        """Bring every machine to the installed version: standbys first, the awake one last."""

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """The event stream; see ``instar_node.events``."""
