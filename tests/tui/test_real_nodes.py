"""Every action of the table, by its key, on real nodes; what it did is read from the node, not the screen."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from instar_node.api import types as t
from instar_node.errors import InstarError
from instar_node.joining import join_home
from instar_node.storage.home import Home
from instar_tui.actions import ACTIONS, PLACES
from tests.cluster.harness import Cluster, Machine, wait_for
from tests.tui.real import Real, watching

pytestmark = pytest.mark.xdist_group("real-tui")

REF = "refs/instar/lease"
"""Where a git hub keeps the lease."""
Journey = Callable[[Real], Awaitable[None]]
JOURNEYS: dict[str, Journey] = {}


def journey(*ids: str) -> Callable[[Journey], Journey]:
    """This function presses the keys of these actions."""

    def keep(made: Journey) -> Journey:
        JOURNEYS.update(dict.fromkeys(ids, made))
        return made

    return keep


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """``desk``, awake, and ``mini``, both as daemons with a hub between them."""
    with Cluster(tmp_path_factory.mktemp("mesh")) as cluster:
        # nothing is to fail over here, however busy the computer is
        cluster.pair_up("desk", "mini", configure=lambda machine: machine.configure(ttl_ms=9_000))
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Machines of one test alone."""
    with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def desk(mesh: Cluster) -> Machine:
    """The first machine, awake again after what an earlier test did."""
    first, second = mesh.machines
    if not first.is_awake():
        wait_for(lambda: first.cli("wakeup").returncode == 0)
    mesh.wait_in_sync(first, [second])
    return first


@pytest.fixture
async def centre(desk: Machine) -> AsyncIterator[Real]:
    """The control centre, attached to the awake machine."""
    async with watching(desk) as real:
        yield real


async def guess(real: Real, folder: Path, code: str, nickname: str = "stranger") -> str:
    """Another home tries a code; returns the error code, ``""`` when it was admitted."""
    view = await real.app.mesh.api.pair_view()
    home = Home(folder / nickname)
    home.prepare()
    assert view.url is not None
    try:
        await asyncio.to_thread(asyncio.run, join_home(home, view.url, code, nickname))
    except InstarError as error:
        return error.code
    return ""


def other_code(code: str) -> str:
    """A well-formed code that is not this one."""
    return code[:-1] + str((int(code[-1]) + 1) % 10)


# -- going about --------------------------------------------------------------------------------------


@journey(*(f"go-{place.name}" for place in PLACES), "back", "help", "palette")
async def about(real: Real) -> None:
    for place in PLACES:
        await real.press("J" if place.name == "join" else place.key)
        await real.until(lambda place=place: real.app.current_mode == place.name)
        if place.name not in ("pair", "join"):
            await real.until("desk")
        if place.name != "overview":
            await real.press("escape")
            await real.until(lambda: real.app.current_mode == "overview")
    await real.press("question_mark")
    await real.until("instar log TOPIC --follow")
    await real.press("escape", "ctrl+p")
    await real.until(lambda: real.app.screen_stack[-1] is not real.app.base_screen())
    await real.press(*"hand off mini")
    await real.until("instar handoff mini")
    await real.press("escape")


@journey("filter", "sort", "sort-reverse", "copy", "save-svg")
async def tables(real: Real) -> None:
    await real.press("2")
    await real.until("mini")
    first = real.app.base_screen().grid()
    await real.press("s", "S")
    assert [m.nickname for m in first.rows] == ["mini", "desk"]
    await real.press("slash", *"!mini", "enter")
    assert [m.nickname for m in first.rows] == ["desk"]
    await real.press("y")
    assert real.app.clipboard == real.machine.id
    await real.press("ctrl+s")
    await real.until("saved")
    assert "desk" in next(Path.cwd().glob("instar-machines-*.svg")).read_text("utf-8")


# -- roles and machines -------------------------------------------------------------------------------


@journey("hand-off")
async def hand_off(real: Real) -> None:
    epoch = real.machine.api.lease().epoch
    await real.press("1", "h")
    await real.until(f"mini is awake, epoch {epoch + 1}")
    await real.until("✔ committed")  # the steps stay in sight
    assert not real.machine.is_awake()
    await real.until("● standby")


@journey("wakeup")
async def wakeup(real: Real) -> None:
    epoch = real.machine.api.lease().epoch
    await real.press("h")
    await real.until(lambda: not real.machine.is_awake())
    await real.until("● standby")
    await real.press("w")
    await real.until(f"desk is awake, epoch {epoch + 2}")
    assert real.machine.is_awake()
    await real.until("◆ AWAKE")


@journey("move-hub")
async def move_hub(real: Real) -> None:
    hub = Path.cwd() / "other.git"
    before = real.machine.api.lease().hub.url
    for url in (str(hub), before):
        await real.press("3", "m", "ctrl+u", *url, "enter")
        await real.until(lambda url=url: real.machine.api.lease().hub.url == url)
        await real.until(lambda: real.machine.is_awake())


@journey("rename")
async def rename(real: Real) -> None:
    mini = next(m for m in real.machine.api.machines().machines if not m.is_self)
    for name in ("box", "mini"):
        await real.press("2")
        await real.select(mini.machine_id)
        await real.press("r", *["backspace"] * 4, *name, "enter")
        await real.until(lambda name=name: real.machine.api.pool_machine(mini.machine_id).nickname == name)
        await real.until("● standby" and name)


# -- topics and words ---------------------------------------------------------------------------------


@journey("new-topic", "compose", "open-topic", "next-topic", "previous-topic")
async def talk(real: Real) -> None:
    for topic in ("alpha", "beta"):
        await real.press("5", "n", *topic, "enter")
        await real.until(lambda topic=topic: real.app.mesh.watched_topic == topic)
        await real.press("i", *"hello", "enter")
        await real.until(lambda topic=topic: real.machine.replies(topic))
        await real.until("✔ answered")
        await real.press("escape")
    await real.until(lambda: len(real.app.mesh.topics()) >= 2)
    await real.press("left_square_bracket")
    await real.until(lambda: real.app.mesh.watched_topic != "beta")
    await real.press("right_square_bracket")
    await real.until(lambda: real.app.mesh.watched_topic == "beta")
    await real.press("5")
    await real.select("alpha")
    await real.press("enter")
    await real.until(lambda: real.app.mesh.watched_topic == "alpha")
    await real.until("agent on desk")


@journey("transfer", "undo-transfer", "unpin")
async def transfer(real: Real) -> None:
    api = real.machine.api
    real.machine.say("moved", "hello")
    wait_for(lambda: real.machine.replies("moved"))
    await real.press("5")
    await real.select("moved")
    await real.press("t")  # two machines: to the other, without a question
    await real.until("moved runs on mini")
    assert api.placement("moved").pinned_to != real.machine.id
    assert "z takes it back" in real.text()
    await real.press("z")
    await real.until("moved runs on desk")
    assert api.placement("moved").owner_nickname == "desk"
    await real.press("u")
    await real.until("moved is unpinned")
    assert api.placement("moved").pinned_to is None


@journey("follow")
async def follow(real: Real) -> None:
    await real.press("7")
    await real.until("▼ following")
    await real.press("f")
    await real.until("■ standing still")
    await real.press("f")
    real.machine.say("news", "hello")
    await real.until("news: answered")


# -- health ---------------------------------------------------------------------------------------------


@journey("verify", "set-gate")
async def drill(real: Real) -> None:
    await real.until(lambda: {gate.state for gate in real.machine.api.flags().gates} == {"open"})  # by itself
    epoch = real.machine.api.lease().epoch
    await real.press("8", "v")
    await real.until("everything works with mini")
    assert real.machine.api.lease().epoch == epoch + 2, "the awake role went there and back"
    await real.until("the awake role went there and back")
    await real.until("✔ handoff")
    await real.press("o")
    await real.until("gate")
    gates = [gate.gate for gate in real.machine.api.flags().gates]
    number = gates.index("transfer")
    await real.press(str(number + 1), "2")
    await real.until("✕ transfer")
    assert real.machine.api.flags().gates[number].state == "shut"
    await real.press("o", str(number + 1), "3")
    await real.until("✔ transfer")


@journey("examine", "update", "sync-seen")
async def mended(real: Real) -> None:
    await real.press("8")
    await real.until(lambda: real.app.base_screen().checks.doctor is not None)
    await real.press("c")
    await real.until("the doctor looked again: nothing is broken")
    await real.press("u")
    await real.until("Update every machine?")
    await real.press("y")
    await real.until("nothing to update: all run what is installed on them")
    await real.press("e")
    await real.until("refusals and conflicts are forgotten")


# -- pairing ------------------------------------------------------------------------------------------


@journey("new-code", "cancel-code")
async def pairing(real: Real) -> None:
    api, folder = real.machine.api, real.machine.home.path.parent
    await real.press("p")
    await real.until("attempts ●●●")
    first = api.pair_view().code
    assert first is not None
    assert f"--code {first}" in real.text()
    left = real.app.base_screen().left_ms()
    for dots, more in (("●●○", "2 attempts left"), ("●○○", "1 attempt left")):
        assert await guess(real, folder, other_code(first)) == "wrong-code"
        await real.until(f"attempts {dots}")
        await real.until(more)
    await real.until(lambda: real.app.base_screen().left_ms() < left)
    await real.press("n")
    await real.until("attempts ●●●")
    assert api.pair_view().code != first
    await real.press("escape")
    await real.until(lambda: api.pair_view().state == "cancelled")


# -- a node of its own ----------------------------------------------------------------------------------


class DeafWebhook:
    """Takes replies; while ``silent`` it hangs up instead of answering: nobody knows what came of them."""

    def __init__(self) -> None:
        self.silent = True
        self.taken: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if owner.silent:
                    self.connection.close()
                    return
                owner.taken.append(body.decode())
                self.send_response(204)
                self.end_headers()

            def handle_one_request(self) -> None:
                with suppress(OSError, ValueError):
                    super().handle_one_request()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def webhook() -> Iterator[DeafWebhook]:
    server = DeafWebhook()
    yield server
    server.close()


async def test_undecided_replies_of_an_embedded_node_are_sent_or_dropped_by_a_key(
    cluster: Cluster, webhook: DeafWebhook
) -> None:
    alone = cluster.machine("desk", hub=None)
    alone.configure(more=f'[channels.webhook]\nurl = "{webhook.url}"\nidempotent = false\n')
    async with watching(alone) as real:
        await real.until("embedded")
        for key, topic in (("s", "kept"), ("d", "dropped")):
            webhook.silent = True
            await asyncio.to_thread(alone.say, topic, f"about {topic}")
            await real.until(lambda: real.app.mesh.status.outbox == 1)  # type: ignore[union-attr]
            await real.press("8")
            await real.until("nobody can say whether it was")
            webhook.silent = False
            await real.press(key)
            await real.until("no reply is undecided")
            await real.until(lambda: not alone.api.outbox().items)
        assert len(webhook.taken) == 1
        assert "about kept" in webhook.taken[0]


async def test_a_person_answers_where_the_agent_is_manual(cluster: Cluster) -> None:
    alone = cluster.machine("desk", hub=None)
    alone.configure(agent='[agent]\nkind = "manual"\n')
    async with watching(alone) as real:
        await real.until("embedded")
        await asyncio.to_thread(alone.say, "42", "are you there?")
        await real.press("6")
        await real.until("waiting for you")
        await real.press("a", *"I am", "enter")
        await real.until("✔ answered")
        assert [row.text for row in alone.replies("42")] == ["I am"]


@pytest.mark.parametrize(("key", "left"), [("enter", 2), ("x", 1)])
async def test_a_machine_is_admitted_when_both_persons_see_the_same(
    cluster: Cluster, key: str, left: int
) -> None:
    desk, mini = cluster.machine("desk", hub=None), cluster.machine("mini", hub=None)
    async with watching(desk) as real:
        await real.until("embedded")
        await real.press("p")
        await real.until("attempts ●●●")
        view = desk.api.pair_view()
        assert view.url is not None
        assert view.code is not None
        joining = asyncio.create_task(
            asyncio.to_thread(mini.cli, "join", view.url, "--code", view.code, "--sas", stdin="y\n")
        )
        await real.until("Is it the same on the other machine?")
        shown = desk.api.pair_view().sas
        assert shown is not None
        await real.until(shown.names[0])
        await real.press(key)
        ran = await joining
        assert f"{shown.digits[:3]} {shown.digits[3:]}" in ran.stderr
        await real.until("mini has joined" if left == 2 else "declined on this machine")
        assert ran.returncode == (0 if left == 2 else 1), ran.stderr
        assert len(desk.api.machines().machines) == left


async def test_a_lonely_machine_joins_from_its_own_screen_when_the_symbols_are_the_same(
    cluster: Cluster,
) -> None:
    desk, mini = cluster.machine("desk"), cluster.machine("mini", hub=None)
    await asyncio.to_thread(desk.start)
    wait_for(desk.is_awake)
    view = desk.api.pair(t.PairRequest(sas=True))
    assert view.url is not None
    assert view.code is not None
    async with watching(mini) as real:
        await real.until("embedded")
        await real.press("J")
        await real.until("joining gives it up")
        for field, value in (("url", view.url), ("code", view.code), ("nickname", "mini")):
            real.app.base_screen().query_one(f"#{field}").value = value
        await real.press("enter", "enter", "enter")
        await real.until("Does the other machine show the same?")
        shown = desk.api.pair_view().sas
        assert shown is not None
        assert f"{shown.digits[:3]} {shown.digits[3:]}" in real.text()
        desk.api.pair_confirm(t.PairConfirm(True))
        await real.press("y")
        await real.until("● standby", 30.0)
        await real.until("1 shows the mesh; w there makes")
        assert "belongs to mesh" not in real.text(), "what one could not do before is of no interest now"
        assert [m.nickname for m in desk.api.machines().machines] == ["desk", "mini"]
        await real.press("7")
        await real.until("desk is connected")  # told by the node that was started anew for the mesh


# -- what ends a mesh as it was -------------------------------------------------------------------------


async def test_force_and_removal_when_the_holder_of_the_embedded_hub_is_gone(cluster: Cluster) -> None:
    gone, here = cluster.machine("gone", hub=None), cluster.machine("near", hub=None)
    gone.start()
    wait_for(gone.is_awake)
    await asyncio.to_thread(cluster.join, gone, here)
    async with watching(here) as real:
        await real.until(lambda: here.api.machines().machines[0].electorate)
        await real.until("gone is awake")
        cluster.wait_in_sync(gone, [])
        await asyncio.to_thread(gone.kill)
        await real.press("w")
        await real.until("--force")  # refused, with the way out
        await real.press("W")
        await real.until("Go on?")
        await real.press("y")
        await real.until(lambda: here.api.health().role == "awake")
        await real.until("◆ AWAKE")
        dead = next(m for m in here.api.machines().machines if not m.is_self)
        await real.press("2")
        await real.select(dead.machine_id)
        await real.press("x")
        await real.until("Remove gone from the mesh?")
        await real.press("y")
        await real.until(lambda: len(here.api.machines().machines) == 1)


async def test_a_split_brain_is_seen_on_every_screen_and_healed_by_a_key(cluster: Cluster) -> None:
    desk, mini = await asyncio.to_thread(cluster.pair_up, "desk", "mini")
    git = ("git", "--git-dir", cluster.hub)
    tip = subprocess.run([*git, "rev-parse", REF], capture_output=True, text=True, check=True).stdout
    wait_for(lambda: mini.cli("wakeup").returncode == 0)
    async with watching(mini) as real:
        await real.until("◆ AWAKE")
        subprocess.run([*git, "update-ref", REF, tip.strip()], check=True)  # a hub that forgets
        await real.until("‼ SPLIT BRAIN. Everybody has stopped")
        await real.press("3")
        await real.until("the lines that were seen")
        await real.press("H")
        await real.until("Go on from this machine's line?")
        await real.press("n")
        assert mini.api.health().split_brain is not None
        await real.press("H")
        await real.until("Go on from this machine's line?")
        await real.press("y")
        await real.until("mini is awake, epoch 1·0")
        await real.until(lambda: "SPLIT BRAIN" not in real.text())
        assert mini.is_awake()
        wait_for(lambda: desk.api.health().split_brain is None)


async def test_leaving_an_embedded_awake_node_hands_the_lease_over_first(
    desk: Machine, mesh: Cluster
) -> None:
    mini = mesh.machines[1]
    desk.stop()
    wait_for(mini.is_awake)
    try:
        async with watching(desk) as real:
            await real.until("embedded")
            await real.until("mini is awake")
            me = desk.api.whoami().machine_id
            await real.until(lambda: me in mini.api.lease().electorate)
            await real.press("w")
            await real.until("◆ AWAKE")
            await real.press("q")
            await real.until("Who answers when you leave?")
            await real.press("h")
            await real.until(lambda: real.app._exit)
            assert mini.is_awake()
    finally:
        desk.start()


# -- the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", sorted(set(JOURNEYS.values()), key=lambda made: made.__name__))
async def test_the_keys_do_on_real_nodes_what_the_table_says(
    centre: Real, run: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await run(centre)


def test_no_action_of_the_table_was_left_out() -> None:
    elsewhere = {
        "send-undecided",
        "drop-undecided",
        "answer",
        "force-wakeup",
        "remove",
        "quit-app",
        "heal-lease",
    }
    elsewhere |= {"confirm-sas", "refuse-sas"}
    assert {action.id for action in ACTIONS} - set(JOURNEYS) - elsewhere == set()
