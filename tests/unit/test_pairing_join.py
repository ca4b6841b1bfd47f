"""A join from end to end, in memory: who gets in, who does not, and what people see."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identity_support import founded, new_identity
from pairing_support import LAN, Host, SteppedClock, other_than, settle, started

from instar_node.errors import InstarError
from instar_node.identity.addresses import is_loopback, reachable
from instar_node.identity.keys import MachineIdentity
from instar_node.pairing import host as host_module
from instar_node.pairing.addresses import best_url, normal_url
from instar_node.pairing.exchange import JoinerExchange
from instar_node.pairing.joiner import POLL_S
from instar_node.pairing.sas import ShortString
from instar_node.pairing.session import LIFETIME_US
from instar_node.pairing.wire import MAX_BODY, Finish, JoinerInfo, Start, Started


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, SteppedClock())


@pytest.fixture
def lap(tmp_path: Path) -> MachineIdentity:
    return new_identity(tmp_path, "lap")


def error_of(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = msgspec.json.decode(body)["error"]
    return error


async def yes(short: ShortString) -> bool:
    return True


async def no(short: ShortString) -> bool:
    return False


# -- getting in -----------------------------------------------------------------------------------------


async def test_the_right_code_lets_a_machine_in_with_two_requests(host: Host, lap: MachineIdentity) -> None:
    requests: list[bytes] = []

    async def post(url: str, body: bytes) -> tuple[int, bytes]:
        requests.append(body)
        return await host.post(url, body)

    code = host.mint()
    outcome = await host.join(code.lower().replace("-", " "), lap, post=post)
    assert len(requests) == 2
    assert outcome.grant.mesh_id == host.registry.mesh_id
    assert outcome.grant.lease == b"lease record"
    assert outcome.grant.identity == host.identity.public
    [joiner] = host.admitted
    assert joiner.identity == lap.public
    view = host.pairing.view()
    assert view.state == "joined"
    assert view.code is None
    assert view.sas == outcome.sas
    assert view.joiner is not None
    assert (view.joiner.nickname, view.joiner.fingerprint) == ("lap", lap.public.fingerprint)


async def test_a_loopback_address_is_not_told_to_another_host(host: Host, lap: MachineIdentity) -> None:
    await host.join(host.mint(), lap)
    assert host.admitted[0].urls == ("http://192.168.1.77:7707",)


async def test_a_code_works_once(host: Host, lap: MachineIdentity, tmp_path: Path) -> None:
    code = host.mint()
    await host.join(code, lap)
    with pytest.raises(InstarError) as refusal:
        await host.join(code, new_identity(tmp_path, "second"))
    assert refusal.value.status == 410
    assert len(host.admitted) == 1


# -- guessing -------------------------------------------------------------------------------------------


async def test_three_attempts_in_all_and_the_fourth_fails_even_with_the_right_code(
    host: Host, lap: MachineIdentity
) -> None:
    code = host.mint()
    for left in (2, 1, 0):
        with pytest.raises(InstarError) as refusal:
            await host.join(other_than(code), lap)
        assert (refusal.value.code, refusal.value.status) == ("wrong-code", 403)
        assert refusal.value.extra["attempts_left"] == left
        assert host.pairing.view().attempts_left == left
    assert host.state() == "locked"
    assert await host.guess(code, lap) == 403
    assert host.admitted == []


async def test_the_third_attempt_may_still_be_right(host: Host, lap: MachineIdentity) -> None:
    code = host.mint()
    for _ in range(2):
        assert await host.guess(other_than(code), lap) == 403
    assert await host.guess(code, lap) == 200


async def test_wrong_guesses_are_shown_with_their_address(host: Host, lap: MachineIdentity) -> None:
    await host.guess(other_than(host.mint()), lap)
    event = host.events[-1]
    assert event.kind == "pair"
    assert event.text == "wrong guess from 192.168.1.77, 2 attempts left"
    assert event.data["remote"] == "192.168.1.77"
    assert event.data["attempts_left"] == 2
    assert host.pairing.view().last_refusal == event.text


async def test_attempts_are_of_the_code_not_of_the_address_or_the_machine(host: Host, tmp_path: Path) -> None:
    code = host.mint()
    for n in range(3):
        finish = await started(host, other_than(code), new_identity(tmp_path, f"thief{n}"))
        status, _ = await host.pairing.handle(msgspec.json.encode(finish), f"10.0.0.{n}")
        assert status == 403
    assert await host.guess(code, new_identity(tmp_path, "lap")) == 403


async def test_guesses_at_the_same_time_cost_one_each(host: Host, tmp_path: Path) -> None:
    code = host.mint()
    finishes = [await started(host, other_than(code), new_identity(tmp_path, f"t{n}")) for n in range(6)]
    finishes.append(await started(host, code, new_identity(tmp_path, "lap")))
    replies = await asyncio.gather(*(host.post("/api/pair", msgspec.json.encode(f)) for f in finishes))
    assert [status for status, _ in replies] == [403] * 7
    assert [error_of(body)["code"] for _, body in replies] == ["wrong-code"] * 3 + ["code-locked"] * 4
    assert host.state() == "locked"


async def test_a_repeated_request_is_one_guess_and_an_exchange_carries_no_second(
    host: Host, lap: MachineIdentity
) -> None:
    code = host.mint()
    finish = await started(host, other_than(code), lap)
    body = msgspec.json.encode(finish)
    assert await host.post("/api/pair", body) == await host.post("/api/pair", body)
    assert host.pairing.view().attempts_left == 2
    changed = msgspec.structs.replace(finish, confirm=bytes(32))
    status, answer = await host.post("/api/pair", msgspec.json.encode(changed))
    assert (status, error_of(answer)["code"]) == (410, "exchange-over")
    assert host.pairing.view().attempts_left == 2


async def test_the_attempt_is_on_disk_when_the_answer_leaves(host: Host, lap: MachineIdentity) -> None:
    await host.guess(other_than(host.mint()), lap)
    assert b'"attempts_left":2' in (host.folder / "pairing-session.json").read_bytes()
    assert host.store.current().attempts_left == 2


async def test_a_lost_answer_is_fetched_again_without_another_attempt(
    host: Host, lap: MachineIdentity
) -> None:
    lost = 0

    async def post(url: str, body: bytes) -> tuple[int, bytes]:
        nonlocal lost
        reply = await host.post(url, body)
        if b'"finish"' in body and lost < 2:
            lost += 1
            raise ConnectionResetError("connection reset")
        return reply

    join = asyncio.create_task(host.join(host.mint(), lap, post=post))
    for _ in range(2):
        await settle()
        host.clock.advance(POLL_S)
    outcome = await join
    assert lost == 2
    assert len(host.admitted) == 1
    assert outcome.grant.mesh_id == host.registry.mesh_id


async def test_a_guess_at_a_replaced_code_touches_the_new_one_in_no_way(
    host: Host, lap: MachineIdentity
) -> None:
    old = host.mint()
    finish = await started(host, old, lap)
    late = asyncio.create_task(host.post("/api/pair", msgspec.json.encode(finish)))
    await asyncio.sleep(0)  # it has arrived and is about to be judged
    host.mint()
    status, _ = await late
    assert status == 410
    assert (host.state(), host.pairing.view().attempts_left) == ("open", 3)
    assert host.admitted == []


# -- states and replies ---------------------------------------------------------------------------------


async def test_no_code_is_404_an_expired_one_410(host: Host, lap: MachineIdentity) -> None:
    assert await host.guess("RIVER-STONE-4071", lap) == 404
    code = host.mint()
    host.clock.advance(LIFETIME_US / 1e6)
    assert await host.guess(code, lap) == 410
    host.mint()
    host.pairing.cancel()
    assert host.state() == "cancelled"
    assert await host.guess(code, lap) == 410


async def test_expiry_is_shown_and_erased_without_anybody_looking(host: Host) -> None:
    host.mint()
    await settle()
    host.clock.advance(LIFETIME_US / 1e6)
    await settle()
    assert host.events[-1].text == "the pairing code expired"
    assert b'"code":null' in (host.folder / "pairing-session.json").read_bytes()


async def test_a_new_code_gets_its_whole_time(host: Host) -> None:
    host.mint()
    await settle()
    host.clock.advance(100)
    host.mint()
    host.clock.advance(30)
    await settle()
    assert host.pairing.view().expires_in_ms == 90_000
    assert host.state() == "open"


async def test_a_member_or_former_member_is_409_and_costs_nothing(host: Host, lap: MachineIdentity) -> None:
    await host.join(host.mint(), lap)
    code = host.mint()
    with pytest.raises(InstarError) as refusal:
        await host.join(code, lap)
    assert (refusal.value.status, refusal.value.code) == (409, "already-member")
    host.registry.remove(lap.machine_id, epoch=1)
    with pytest.raises(InstarError) as refusal:
        await host.join(code, lap)
    assert (refusal.value.status, refusal.value.code) == (409, "removed-machine")
    assert host.pairing.view().attempts_left == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"step": "begin"}',
        b'{"step": "start"}',
        b'{"step": "start", "version": 1, "machine_id": "me", "commitment": "AAAA"}',
        b'{"step": "finish", "session": 3}',
        b"[" * 50_000,
        b'"' + b"x" * MAX_BODY + b'"',
    ],
)
async def test_malformed_requests_are_422(host: Host, body: bytes) -> None:
    host.mint()
    status, answer = await host.post("/api/pair", body)
    assert (status, error_of(answer)["code"]) == (422, "malformed")
    assert host.pairing.view().attempts_left == 3


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.dictionaries(
            st.sampled_from(["step", "session", "share", "confirm", "sealed", "accept", "proof", "version"]),
            inner | st.sampled_from(["start", "finish", "verdict"]),
            max_size=6,
        ),
    )
)
def test_no_request_of_a_stranger_gets_anything_but_a_clear_refusal(host: Host, junk: object) -> None:
    status, body = asyncio.run(host.post("/api/pair", msgspec.json.encode(junk)))
    assert status == 422
    assert error_of(body)["message"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300) | st.integers(1, 60_000).map(lambda depth: b'{"step":' + b"[" * depth))
def test_no_bytes_of_a_stranger_get_anything_but_a_clear_refusal(host: Host, junk: bytes) -> None:
    runs = len(host.pairing._runs)
    status, body = asyncio.run(host.post("/api/pair", junk))
    assert (status, error_of(body)["code"]) == (422, "malformed")
    assert len(host.pairing._runs) == runs


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(status=st.sampled_from([200, 403, 500]), junk=st.binary(max_size=200) | st.just(b"[" * 50_000))
def test_whatever_answers_instead_of_a_host_the_joiner_says_so_and_goes_no_further(
    host: Host, lap: MachineIdentity, status: int, junk: bytes
) -> None:
    asked: list[bytes] = []

    async def post(url: str, body: bytes) -> tuple[int, bytes]:
        asked.append(body)
        return status, junk

    with pytest.raises(InstarError) as refusal:
        asyncio.run(host.join("ABLE-ACID-0000", lap, post=post))
    assert refusal.value.message
    assert len(asked) == 1


async def test_another_pairing_version_is_told_to_update(host: Host, lap: MachineIdentity) -> None:
    host.mint()
    status, body = await host.post("/api/pair", msgspec.json.encode(Start(2, lap.machine_id, bytes(32))))
    assert (status, error_of(body)["code"]) == (422, "pairing-version")


async def test_more_than_20_exchanges_in_10_seconds_are_429(host: Host, lap: MachineIdentity) -> None:
    host.mint()
    start = msgspec.json.encode(Start(1, lap.machine_id, JoinerExchange("A", lap.machine_id).commitment))
    statuses = [(await host.post("/api/pair", start))[0] for _ in range(host_module.RATE_LIMIT)]
    assert statuses == [200] * 20
    status, body = await host.post("/api/pair", start)
    assert status == 429
    assert error_of(body)["retry_in_ms"] > 9_000
    host.clock.advance(10)
    assert (await host.post("/api/pair", start))[0] == 200


async def test_identities_that_do_not_hold_together_are_refused_even_with_the_code(
    host: Host, lap: MachineIdentity, tmp_path: Path
) -> None:
    thief = new_identity(tmp_path, "thief")
    mixed = msgspec.structs.replace(lap.public, encryption_public=thief.public.encryption_public)
    for claimed in (thief.public, mixed):
        code = host.mint()
        exchange = JoinerExchange(code, lap.machine_id)
        start = Start(1, lap.machine_id, exchange.commitment)
        _, body = await host.post("/api/pair", msgspec.json.encode(start))
        answer = msgspec.json.decode(body, type=Started)
        keys = exchange.receive(answer.session, answer.machine_id, answer.share)
        sealed = keys.seal("joiner", msgspec.json.encode(JoinerInfo(claimed, "lap")))
        finish = Finish(answer.session, exchange.share, keys.confirmation("joiner"), sealed)
        status, _ = await host.post("/api/pair", msgspec.json.encode(finish))
        assert status == 422
        assert host.state() == "consumed"
    assert host.admitted == []


async def test_a_failed_admission_says_why_on_both_machines(host: Host, lap: MachineIdentity) -> None:
    host.refuse = InstarError("hub-unreachable", "the hub does not answer", "check it", status=502)
    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(), lap)
    assert (refusal.value.code, refusal.value.hint) == ("hub-unreachable", "check it")
    view = host.pairing.view()
    assert (view.state, view.last_refusal) == ("consumed", "lap was not admitted: the hub does not answer")
    assert host.events[-1].text == view.last_refusal


async def test_a_defect_in_the_admission_is_no_traceback_to_strangers(
    host: Host, lap: MachineIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    host.refuse = RuntimeError("inner detail")
    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(), lap)
    assert (refusal.value.code, refusal.value.status) == ("admission-failed", 500)
    assert "inner detail" not in refusal.value.message
    assert "inner detail" in caplog.text


async def test_an_admission_goes_on_when_the_joiner_hangs_up(host: Host, lap: MachineIdentity) -> None:
    host.gate = asyncio.Event()
    join = asyncio.create_task(host.join(host.mint(), lap))
    await settle()
    join.cancel()
    await settle()
    host.gate.set()
    await settle()
    assert host.state() == "joined"


async def test_the_answer_can_be_fetched_after_hanging_up(host: Host, lap: MachineIdentity) -> None:
    host.gate = asyncio.Event()
    body = msgspec.json.encode(await started(host, host.mint(), lap))
    first = asyncio.create_task(host.post("/api/pair", body))
    await settle()
    first.cancel()
    await settle()
    host.gate.set()
    assert (await host.post("/api/pair", body))[0] == 200


async def test_hanging_up_after_the_comparison_does_not_undo_the_admission(
    host: Host, lap: MachineIdentity
) -> None:
    host.gate = asyncio.Event()
    join = asyncio.create_task(host.join(host.mint(sas=True), lap, confirm=yes))
    await settle()
    host.pairing.confirm(True)
    host.clock.advance(POLL_S)  # the joiner asks again and waits for the admission
    await settle()
    join.cancel()
    await settle()
    host.gate.set()
    await settle()
    assert host.state() == "joined"


async def test_a_code_minted_during_an_admission_stays_open(host: Host, lap: MachineIdentity) -> None:
    host.gate = asyncio.Event()
    join = asyncio.create_task(host.join(host.mint(), lap))
    await settle()
    host.mint()
    host.gate.set()
    await join
    assert (host.state(), len(host.admitted)) == ("open", 1)


async def test_close_ends_what_is_under_way(host: Host, lap: MachineIdentity) -> None:
    host.gate = asyncio.Event()
    join = asyncio.create_task(host.join(host.mint(), lap))
    await settle()
    await host.pairing.close()
    with pytest.raises(asyncio.CancelledError):
        await join
    assert host.admitted == []


async def test_codes_are_never_logged_or_published(
    host: Host, lap: MachineIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for sas in (False, True):
        code = host.mint(sas)
        await host.guess(other_than(code), lap)
        await host.guess(code, lap)
    host.pairing.cancel()
    said = caplog.text + " ".join(f"{event.text} {list(event.data.values())}" for event in host.events)
    for part in code.split("-"):
        assert part not in said
        assert part.lower() not in said.lower().replace("instar", "")


# -- comparing the short string -------------------------------------------------------------------------


@pytest.mark.parametrize("asks", ["host", "joiner", "both"])
@pytest.mark.parametrize("first", ["host", "joiner"])
async def test_with_sas_on_either_side_nobody_is_admitted_before_two_yes(
    host: Host, lap: MachineIdentity, asks: str, first: str
) -> None:
    answered, shown = asyncio.Event(), []

    async def person(short: ShortString) -> bool:
        shown.append(short)
        await answered.wait()
        return True

    code = host.mint(sas=asks != "joiner")
    join = asyncio.create_task(host.join(code, lap, sas=asks != "host", confirm=person))
    await settle()
    view = host.pairing.view()
    assert view.state == "confirming"
    assert [view.sas] == shown
    steps = [lambda: host.pairing.confirm(True), answered.set]
    for step in steps if first == "host" else reversed(steps):
        assert host.admitted == []
        step()
        await settle()
    host.clock.advance(POLL_S)
    outcome = await join
    assert host.state() == "joined"
    assert outcome.sas == view.sas


async def test_no_on_the_host_refuses_the_joiner(host: Host, lap: MachineIdentity) -> None:
    join = asyncio.create_task(host.join(host.mint(sas=True), lap, confirm=yes))
    await settle()
    assert host.pairing.confirm(False).state == "cancelled"
    host.clock.advance(POLL_S)
    with pytest.raises(InstarError) as refusal:
        await join
    assert (refusal.value.code, refusal.value.status) == ("declined", 403)
    assert host.admitted == []


async def test_no_on_the_joiner_is_told_to_the_host(host: Host, lap: MachineIdentity) -> None:
    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(sas=True), lap, confirm=no)
    assert refusal.value.code == "declined"
    assert host.state() == "cancelled"
    assert host.events[-1].text == "the join was declined on the joining machine"
    with pytest.raises(InstarError) as late:
        host.pairing.confirm(True)
    assert late.value.code == "nothing-to-confirm"
    assert host.admitted == []


async def test_a_joiner_that_cannot_ask_anybody_declines_with_the_way_out(
    host: Host, lap: MachineIdentity
) -> None:
    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(sas=True), lap)
    assert refusal.value.code == "sas-required"
    assert host.state() == "cancelled"


async def test_a_comparison_that_nobody_answers_expires_on_both_sides(
    host: Host, lap: MachineIdentity
) -> None:
    join = asyncio.create_task(host.join(host.mint(sas=True), lap, confirm=yes))
    await settle()
    host.clock.advance(LIFETIME_US / 1e6)
    with pytest.raises(InstarError) as refusal:
        await join
    assert refusal.value.code == "not-confirmed"
    assert host.state() == "expired"
    assert host.admitted == []


async def test_a_host_that_does_not_wait_for_the_comparison_is_not_believed(
    host: Host, lap: MachineIdentity
) -> None:
    async def post(url: str, body: bytes) -> tuple[int, bytes]:
        status, answer = await host.post(url, body)
        return 200 if status == 202 else status, answer

    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(), lap, post=post, sas=True, confirm=yes)
    assert refusal.value.code == "host-not-authentic"


async def test_only_the_joiner_of_the_exchange_can_answer_for_it(host: Host, lap: MachineIdentity) -> None:
    finish = await started(host, host.mint(sas=True), lap)
    assert (await host.post("/api/pair", msgspec.json.encode(finish)))[0] == 202
    for accept in (True, False):
        forged = {"step": "verdict", "session": finish.session, "accept": accept, "proof": bytes(32)}
        assert (await host.post("/api/pair", msgspec.json.encode(forged)))[0] == 422
    assert host.state() == "confirming"


# -- somebody in between --------------------------------------------------------------------------------


async def test_a_relay_that_alters_anything_gets_nobody_in(host: Host, lap: MachineIdentity) -> None:
    altered = [
        ("start", "commitment"),
        ("started", "share"),
        ("started", "machine_id"),
        ("started", "session"),
        ("finish", "share"),
        ("finish", "confirm"),
        ("finish", "sealed"),
        ("finished", "confirm"),
        ("finished", "sealed"),
    ]
    for message, field in altered:
        before = len(host.admitted)

        async def post(
            url: str, body: bytes, message: str = message, field: str = field
        ) -> tuple[int, bytes]:
            step = msgspec.json.decode(body)["step"]
            body = _altered(body, field) if step == message else body
            status, answer = await host.post(url, body)
            replies = {"start": "started", "finish": "finished"}
            return status, _altered(answer, field) if replies[step] == message and status == 200 else answer

        with pytest.raises(InstarError):
            await host.join(host.mint(), lap, post=post)
        if message != "finished":
            assert len(host.admitted) == before, (message, field)
        elif len(host.admitted) > before:  # admitted, but the joiner believed nothing: a fresh identity next
            lap = MachineIdentity.load_or_create(host.folder.parent / f"lap-{field}")


def _altered(body: bytes, field: str) -> bytes:
    fields = msgspec.json.decode(body)
    value = fields[field]
    if field in ("session", "machine_id"):
        fields[field] = value[:-1] + ("0" if value[-1] != "0" else "1")
    else:
        fields[field] = ("B" if value[5] == "A" else "A").join((value[:5], value[6:]))
    return msgspec.json.encode(fields)


async def test_a_relay_that_passes_everything_on_reads_nothing(host: Host, lap: MachineIdentity) -> None:
    seen = b""

    async def post(url: str, body: bytes) -> tuple[int, bytes]:
        nonlocal seen
        status, answer = await host.post(url, body)
        seen += body + answer
        return status, answer

    code = host.mint()
    outcome = await host.join(code, lap, post=post)
    for secret in (
        code,
        code.split("-")[0],
        host.registry.mesh_id,
        outcome.sas.digits,
        '"lap"',
        "lease record",
    ):
        assert secret.encode() not in seen


async def test_a_host_that_does_not_know_the_code_is_found_out(
    host: Host, lap: MachineIdentity, tmp_path: Path
) -> None:
    false = Host(tmp_path / "false", host.clock)
    false.mint()
    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(), lap, post=false.post)
    assert refusal.value.code == "wrong-code"
    assert false.admitted == []


async def test_a_grant_of_another_mesh_or_without_the_joiner_is_not_believed(
    host: Host, lap: MachineIdentity, tmp_path: Path
) -> None:
    other = founded(tmp_path, "other", host.clock)
    honest = host.pairing._admit

    async def lying(field: str, value: Any, joiner: JoinerInfo) -> Any:
        return msgspec.structs.replace(await honest(joiner), **{field: value})

    for n, (field, value) in enumerate(
        [("mesh_id", other.mesh_id), ("records", other.records), ("records", host.registry.records)]
    ):
        host.pairing._admit = lambda joiner, field=field, value=value: lying(field, value, joiner)  # type: ignore[misc]
        with pytest.raises(InstarError) as refusal:
            await host.join(host.mint(), new_identity(tmp_path, f"lap{n}"))
        assert refusal.value.code == "bad-grant"
        assert "remove" in refusal.value.hint


# -- what the joiner says of each failing step ----------------------------------------------------------


async def test_no_answer_names_the_address_and_what_to_check(host: Host, lap: MachineIdentity) -> None:
    async def post(url: str, body: bytes) -> tuple[int, bytes]:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(), lap, post=post)
    assert refusal.value.code == "host-unreachable"
    assert LAN in refusal.value.message
    assert "firewall" in refusal.value.hint


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>"), (200, b"<html>"), (502, b'{"error": "x"}'), (500, b'{"error": {}}')],
)
async def test_something_else_at_the_address_is_said_so(
    host: Host, lap: MachineIdentity, status: int, body: bytes
) -> None:
    async def post(url: str, _: bytes) -> tuple[int, bytes]:
        return status, body

    with pytest.raises(InstarError) as refusal:
        await host.join(host.mint(), lap, post=post)
    assert refusal.value.code == "not-a-node"


async def test_typing_slips_cost_no_attempt(host: Host, lap: MachineIdentity) -> None:
    code = host.mint()
    for wrong in ("", "RIVER STONE", "RIVVER-STONE-0000"):
        with pytest.raises(InstarError) as refusal:
            await host.join(wrong, lap)
        assert refusal.value.extra == {"field": "code"}
    with pytest.raises(InstarError) as refusal:
        await host.join(code, lap, url="ftp://x")
    assert refusal.value.extra == {"field": "url"}
    assert host.pairing.view().attempts_left == 3


# -- what people see ------------------------------------------------------------------------------------


def test_the_view_counts_down_and_has_the_command_to_type(tmp_path: Path) -> None:
    host = Host(tmp_path, SteppedClock(), ("http://127.0.0.1:7707", LAN))

    async def look() -> None:
        code = host.mint()
        host.clock.advance(36)
        view = host.pairing.view()
        assert (view.code, view.url) == (code, LAN)
        assert view.join_command == f"instar join {LAN} --code {code}"
        assert (view.expires_in_ms, view.lifetime_ms) == (84_000, 120_000)
        assert (view.attempts_left, view.attempts_max) == (3, 3)
        assert view.warning is None

    asyncio.run(look())


@pytest.mark.parametrize("urls", [(), ("http://127.0.0.1:7707",)])
async def test_an_address_that_others_cannot_reach_is_warned_of(
    tmp_path: Path, urls: tuple[str, ...]
) -> None:
    host = Host(tmp_path, SteppedClock(), urls)
    host.mint()
    warning = host.pairing.view().warning
    assert warning is not None
    assert "config.toml" in warning


async def test_before_any_code_there_is_nothing_to_see_or_cancel(host: Host) -> None:
    assert host.pairing.view().state == host.pairing.cancel().state == "none"
    assert host.pairing.view().expires_in_ms == 0


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("192.168.1.20:7707", "http://192.168.1.20:7707"),
        (" https://desk.example/ ", "https://desk.example"),
        ("http://[::1]:7707/base/", "http://[::1]:7707/base"),
    ],
)
def test_addresses_are_taken_as_people_type_them(typed: str, normal: str) -> None:
    assert normal_url(typed) == normal


@pytest.mark.parametrize("typed", ["", "http://", "ftp://x", "http://x:99999", "http://a b", "http://x:0"])
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(InstarError):
        normal_url(typed)


def test_loopback_addresses_are_told_apart() -> None:
    loopback = ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://0.0.0.0:1"]
    assert all(is_loopback(url) for url in loopback)
    assert not is_loopback(LAN)
    assert reachable([*loopback, LAN], same_host=False) == (LAN,)
    assert reachable(loopback, same_host=True) == tuple(loopback)
    assert best_url([loopback[0], LAN]) == LAN
    assert best_url(loopback) == loopback[0]
    assert best_url([]) is None
