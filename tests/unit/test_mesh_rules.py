"""The pure rules of the mesh: lanes, keys, limits, addresses, what is told to people."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar_node.build import overlap
from instar_node.clock import MICROS_PER_SECOND
from instar_node.contracts import Lane
from instar_node.mesh.addresses import dial_urls, http_host, offered_urls, tunnel_url
from instar_node.mesh.channel import RekeyPolicy
from instar_node.mesh.frames import (
    MAX_FRAME,
    PIECE,
    Credit,
    DataPiece,
    FrameError,
    Hello,
    Ping,
    RekeyAnswer,
    RekeyDone,
    Request,
    control_piece,
    data_piece,
    decode_frame,
    encode_frame,
    parse_piece,
)
from instar_node.mesh.lanes import CREDIT_EVERY, MAX_QUEUED, MAX_QUEUED_FRAMES, WINDOW, Incoming, Outgoing
from instar_node.mesh.limits import (
    BURST_PER_ADDRESS,
    MAX_ADDRESSES,
    MAX_PENDING,
    MAX_PENDING_PER_ADDRESS,
    CallerLimits,
)
from instar_node.mesh.noise import NoiseError
from instar_node.mesh.peers import QUIET_US, RECENT_US, Announcer, dial_delay
from tests.unit.mesh_channels import channels

# -- lanes ------------------------------------------------------------------------------------------------


def sent(outgoing: Outgoing) -> DataPiece:
    piece = outgoing.next_piece()
    assert piece is not None
    parsed = parse_piece(piece)
    assert isinstance(parsed, DataPiece)
    return parsed


def test_urgent_traffic_overtakes_a_frame_already_being_sent() -> None:
    outgoing = Outgoing()
    outgoing.push(Lane.BULK, bytes(3 * PIECE))
    assert sent(outgoing).lane is Lane.BULK
    outgoing.push(Lane.NORMAL, b"normal")
    outgoing.push(Lane.LEASE, b"lease")
    assert [sent(outgoing).lane for _ in range(4)] == [Lane.LEASE, Lane.NORMAL, Lane.BULK, Lane.BULK]
    assert outgoing.next_piece() is None


def test_a_lane_stops_at_its_window_and_goes_on_with_credit_while_the_lease_lane_never_stops() -> None:
    outgoing = Outgoing()
    outgoing.push(Lane.BULK, bytes(WINDOW + PIECE))
    for _ in range(WINDOW // PIECE):
        assert outgoing.next_piece() is not None
    assert outgoing.next_piece() is None
    outgoing.push(Lane.LEASE, b"lease")
    assert sent(outgoing).lane is Lane.LEASE
    outgoing.credit(Lane.BULK, PIECE)
    assert sent(outgoing).last
    assert outgoing.next_piece() is None


def test_credit_for_bytes_never_sent_is_a_breach() -> None:
    outgoing = Outgoing()
    with pytest.raises(FrameError):
        outgoing.credit(Lane.NORMAL, 1)


def test_a_full_queue_refuses_and_an_abandoned_frame_makes_room() -> None:
    outgoing = Outgoing()
    first = outgoing.push(Lane.LEASE, bytes(MAX_QUEUED[Lane.LEASE]))
    assert first is not None
    assert outgoing.push(Lane.LEASE, b"x") is None
    first.abandoned = True
    assert outgoing.push(Lane.LEASE, b"x") is not None
    assert sent(outgoing).data == b"x"


def test_a_queue_is_bounded_in_frames_too() -> None:
    outgoing = Outgoing()
    for _ in range(MAX_QUEUED_FRAMES):
        assert outgoing.push(Lane.NORMAL, b"x") is not None
    assert outgoing.push(Lane.NORMAL, b"x") is None


def test_a_frame_begun_is_sent_to_its_end_although_abandoned() -> None:
    outgoing = Outgoing()
    entry = outgoing.push(Lane.NORMAL, bytes(2 * PIECE))
    assert entry is not None
    sent(outgoing)
    entry.abandoned = True
    assert sent(outgoing).last


@given(st.lists(st.tuples(st.sampled_from(Lane), st.integers(1, 3 * PIECE)), max_size=12))
def test_frames_arrive_whole_and_in_order_on_each_lane(frames: list[tuple[Lane, int]]) -> None:
    outgoing, incoming = Outgoing(), Incoming()
    expected: dict[Lane, list[bytes]] = {lane: [] for lane in Lane}
    arrived: dict[Lane, list[bytes]] = {lane: [] for lane in Lane}
    for n, (lane, size) in enumerate(frames):
        if lane is Lane.LEASE:
            size = min(size, MAX_FRAME[lane])
        data = bytes((n,)) * size
        expected[lane].append(data)
        assert outgoing.push(lane, data) is not None
    while (raw := outgoing.next_piece()) is not None:
        piece = parse_piece(raw)
        assert isinstance(piece, DataPiece)
        if (whole := incoming.feed(piece)) is not None:
            arrived[piece.lane].append(whole)
        if (credit := incoming.credit_due(piece.lane)) is not None:
            outgoing.credit(credit.lane, credit.bytes)
    assert arrived == expected


def test_credit_is_given_after_enough_was_taken_in_and_never_for_lease_traffic() -> None:
    incoming = Incoming()
    for lane in (Lane.LEASE, Lane.BULK):
        for _ in range(CREDIT_EVERY // PIECE):
            assert incoming.credit_due(lane) is None
            incoming.feed(DataPiece(lane, True, bytes(PIECE)))
    assert incoming.credit_due(Lane.LEASE) is None
    assert incoming.credit_due(Lane.BULK) == Credit(Lane.BULK, CREDIT_EVERY)
    assert incoming.credit_due(Lane.BULK) is None


def test_a_frame_above_the_bound_of_its_lane_is_a_breach() -> None:
    incoming = Incoming()
    for _ in range(MAX_FRAME[Lane.LEASE] // PIECE):
        incoming.feed(DataPiece(Lane.LEASE, False, bytes(PIECE)))
    with pytest.raises(FrameError):
        incoming.feed(DataPiece(Lane.LEASE, True, b"x"))


# -- frames -----------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_garbage_is_a_frame_error_and_nothing_else(data: bytes) -> None:
    for decode in (parse_piece, decode_frame):
        try:
            decode(data)
        except FrameError:
            continue


@pytest.mark.parametrize(
    "piece",
    [b"", b"\x01x", b"\x86x", b"\xffx", b"\x00", b"\x00\xc0", control_piece(Ping(1, None))[:-1]],
)
def test_pieces_outside_the_protocol_are_refused(piece: bytes) -> None:
    with pytest.raises(FrameError):
        parse_piece(piece)


def test_frames_and_pieces_survive_the_wire() -> None:
    request = Request(7, "part.ask", 250, msgspec.Raw(msgspec.msgpack.encode({"a": 1})))
    back = decode_frame(encode_frame(request))
    assert isinstance(back, Request)
    assert (back.id, back.kind, back.within_ms, bytes(back.body)) == (
        7,
        "part.ask",
        250,
        bytes(request.body),
    )
    assert parse_piece(data_piece(Lane.BULK, True, b"x")) == DataPiece(Lane.BULK, True, b"x")
    assert parse_piece(control_piece(Ping(3, 9))) == Ping(3, 9)


# -- keys -------------------------------------------------------------------------------------------------

POLICY = RekeyPolicy(after_us=100, after_messages=10, refuse_us=200, refuse_messages=20)


def test_a_change_of_keys_loses_no_message_in_flight() -> None:
    caller, called = channels(POLICY)
    to_called = [caller.seal(b"c0")]
    to_called.append(caller.seal_control(caller.begin_rekey(), 1))
    to_called.append(caller.seal(b"c1"))
    to_caller = [called.seal(b"d0")]
    assert called.open(to_called[0]) == b"c0"
    step = parse_piece(called.open(to_called[1]))
    answer = called.rekey_step(step, 1)  # type: ignore[arg-type]
    assert isinstance(answer, RekeyAnswer)
    to_caller += [called.seal(b"d1"), called.seal_control(answer, 1), called.seal(b"d2")]
    assert called.open(to_called[2]) == b"c1"
    assert [caller.open(to_caller[n]) for n in (0, 1)] == [b"d0", b"d1"]
    done = caller.rekey_step(parse_piece(caller.open(to_caller[2])), 2)  # type: ignore[arg-type]
    assert isinstance(done, RekeyDone)
    late = caller.seal(b"c2")
    sealed_done, after = caller.seal_control(done, 2), caller.seal(b"c3")
    assert caller.open(to_caller[3]) == b"d2"
    assert called.open(late) == b"c2"
    called.rekey_step(parse_piece(called.open(sealed_done)), 2)  # type: ignore[arg-type]
    assert called.open(after) == b"c3"
    assert not caller.rekeying
    assert not called.rekeying


def test_old_keys_open_nothing_after_the_change() -> None:
    caller, called = channels(POLICY)
    old_sending = called._sending
    answer = called.rekey_step(caller.begin_rekey(), 1)
    assert isinstance(answer, RekeyAnswer)
    assert caller.open(called.seal_control(answer, 1)) == control_piece(answer)
    caller.rekey_step(answer, 1)
    with pytest.raises(NoiseError):
        caller.open(old_sending.encrypt(b"recorded key"))
    assert called._sending is not old_sending


def test_keys_are_due_by_age_or_by_use_and_only_the_dialling_side_begins() -> None:
    caller, called = channels(POLICY)
    assert not caller.rekey_due(99)
    assert caller.rekey_due(100)
    assert not called.rekey_due(100)
    for _ in range(10):
        caller.open(called.seal(b"x"))
    assert caller.rekey_due(0)
    caller.begin_rekey()
    assert not caller.rekey_due(100)


def test_keys_too_old_or_used_too_often_are_worn_out() -> None:
    caller, _ = channels(POLICY, now=1_000)
    assert not caller.worn_out(1_199)
    assert caller.worn_out(1_200)
    for _ in range(20):
        caller.seal(b"x")
    assert caller.worn_out(1_000)


def test_steps_of_rekeying_out_of_turn_are_breaches() -> None:
    caller, called = channels(POLICY)
    with pytest.raises(FrameError):
        called.rekey_step(RekeyDone(), 1)
    with pytest.raises(FrameError):
        caller.rekey_step(RekeyAnswer(b"x"), 1)
    opening = caller.begin_rekey()
    with pytest.raises(FrameError):
        caller.rekey_step(opening, 1)
    called.rekey_step(opening, 1)
    with pytest.raises(FrameError):
        called.rekey_step(RekeyDone(), 1)  # before our answer has even left
    with pytest.raises(FrameError):
        called.rekey_step(opening, 1)


# -- limits -----------------------------------------------------------------------------------------------


def test_an_address_may_not_hold_many_handshakes_open() -> None:
    limits = CallerLimits()
    for _ in range(MAX_PENDING_PER_ADDRESS):
        assert limits.admit("1.2.3.4", 0)
    assert not limits.admit("1.2.3.4", 0)
    assert limits.admit("5.6.7.8", 0)
    limits.leave("1.2.3.4")
    assert limits.admit("1.2.3.4", 0)


def test_an_address_is_slowed_to_its_rate_and_recovers() -> None:
    limits = CallerLimits()

    def knock(now: int) -> bool:
        admitted = limits.admit("1.2.3.4", now)
        if admitted:
            limits.leave("1.2.3.4")
        return admitted

    assert sum(knock(0) for _ in range(2 * BURST_PER_ADDRESS)) == BURST_PER_ADDRESS
    assert not knock(MICROS_PER_SECOND // 20)
    assert knock(MICROS_PER_SECOND)


def test_all_addresses_together_are_bounded() -> None:
    limits = CallerLimits()
    admitted = sum(limits.admit(f"10.0.0.{n}", 0) for n in range(2 * MAX_PENDING))
    assert admitted == MAX_PENDING


def test_memory_of_addresses_is_bounded() -> None:
    limits = CallerLimits()
    for n in range(2 * MAX_ADDRESSES):
        limits.admit(f"address {n}", 0)
        limits.leave(f"address {n}")
    assert len(limits._buckets) == MAX_ADDRESSES


# -- peers ------------------------------------------------------------------------------------------------


def test_dialling_backs_off_sooner_for_a_machine_not_heard_lately() -> None:
    now = RECENT_US + 5
    assert dial_delay(0, None, now, 1.0) == pytest.approx(0.1)
    assert dial_delay(0, None, now, 0.0) == pytest.approx(0.05)
    assert dial_delay(3, None, now, 1.0) == pytest.approx(0.8)
    assert dial_delay(50, None, now, 1.0) == pytest.approx(15.0)
    assert dial_delay(50, now - 1, now, 1.0) == pytest.approx(2.0)
    assert dial_delay(50, 0, now, 1.0) == pytest.approx(15.0)


def test_the_address_that_worked_is_tried_first_and_each_only_once() -> None:
    urls = dial_urls("http://b:1", ["http://a:1", "http://b:1"], ["http://c:1", "ftp://d", "http://[::1"])
    assert urls == ["http://b:1", "http://a:1", "http://c:1"]


@pytest.mark.parametrize(
    "url", ["", "h:1", "ftp://h", "http://", "http://[::1", "http://h:port", "http://h:99999"]
)
def test_what_is_no_address_has_no_host(url: str) -> None:
    assert http_host(url) is None
    assert offered_urls([url], same_host=True) == ()


def test_addresses_become_tunnel_addresses() -> None:
    assert tunnel_url("http://h:7707") == "ws://h:7707/mesh/tunnel"
    assert tunnel_url("https://h/instar/") == "wss://h/instar/mesh/tunnel"


def test_a_loopback_address_is_never_offered_to_another_host() -> None:
    urls = ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://192.168.1.2:1")
    assert offered_urls(urls, same_host=False) == ("http://192.168.1.2:1",)
    assert offered_urls(urls, same_host=True) == urls


def test_protocol_ranges_overlap_or_not() -> None:
    assert overlap((1, 3), (3, 5))
    assert overlap((2, 2), (1, 9))
    assert not overlap((1, 2), (3, 4))
    assert not overlap((3, 4), (1, 2))


def test_a_flapping_peer_is_told_once_and_then_settles_on_the_truth() -> None:
    announcer = Announcer()
    assert announcer.changed(True, 0)
    told = [announcer.changed(up, n) for n, up in enumerate([False, True, False, True, False], start=1)]
    assert told == [False] * 5
    assert announcer.owing
    assert not announcer.settle(QUIET_US - 1)
    assert announcer.settle(QUIET_US)
    assert not announcer.owing
    assert not announcer.settle(3 * QUIET_US)


def test_a_peer_back_where_it_was_is_not_told_again() -> None:
    announcer = Announcer()
    announcer.changed(True, 0)
    announcer.changed(False, 1)
    announcer.changed(True, 2)
    assert not announcer.settle(2 * QUIET_US)


def test_hello_is_bounded() -> None:
    many = Hello("1", (1, 1), "i", tuple(f"http://h:{n}" for n in range(17)))
    with pytest.raises(FrameError):
        parse_piece(control_piece(many))
