"""When a silent peer is pinged, and when it is given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.http_client.heartbeat import SLOWEST_BYTES_PER_S, Beat, Heartbeat

S = 20.0


def test_a_peer_that_sends_is_never_pinged() -> None:
    heartbeat = Heartbeat(S, 0.0)
    for second in range(0, 100, 10):
        assert heartbeat.look(second, received_at=second, sent_bytes=0, reading=True) == Beat("wait", S)


def test_a_silent_peer_is_pinged_once_and_given_up_an_interval_later() -> None:
    heartbeat = Heartbeat(S, 0.0)
    assert heartbeat.look(5.0, received_at=0.0, sent_bytes=10, reading=True) == Beat("wait", 15.0)
    assert heartbeat.look(20.0, received_at=0.0, sent_bytes=0, reading=True) == Beat("ping", S)
    assert heartbeat.look(30.0, received_at=0.0, sent_bytes=0, reading=True) == Beat("wait", 10.0)
    assert heartbeat.look(40.0, received_at=0.0, sent_bytes=0, reading=True) == Beat("dead", 0.0)


def test_any_byte_after_the_ping_is_life() -> None:
    heartbeat = Heartbeat(S, 0.0)
    heartbeat.look(20.0, received_at=0.0, sent_bytes=0, reading=True)
    assert heartbeat.look(40.0, received_at=39.0, sent_bytes=0, reading=True) == Beat("wait", 19.0)
    assert heartbeat.look(59.0, received_at=39.0, sent_bytes=0, reading=True) == Beat("ping", S)


def test_a_megabyte_on_a_slow_line_does_not_look_dead() -> None:
    heartbeat, megabyte = Heartbeat(S, 0.0), 1024 * 1024
    assert heartbeat.look(20.0, received_at=0.0, sent_bytes=megabyte, reading=True).action == "ping"
    last = 2 * S + megabyte / SLOWEST_BYTES_PER_S
    assert heartbeat.look(last - 1, received_at=0.0, sent_bytes=megabyte, reading=True) == Beat("wait", 1.0)
    assert heartbeat.look(last, received_at=0.0, sent_bytes=megabyte, reading=True).action == "dead"


def test_what_was_written_before_the_last_byte_came_gives_no_patience() -> None:
    heartbeat = Heartbeat(S, 0.0)
    assert heartbeat.look(1.0, received_at=1.0, sent_bytes=10**9, reading=True).action == "wait"
    assert heartbeat.look(21.0, received_at=1.0, sent_bytes=10**9, reading=True).action == "ping"
    assert heartbeat.look(41.0, received_at=1.0, sent_bytes=10**9, reading=True).action == "dead"


def test_silence_says_nothing_while_nothing_is_read() -> None:
    heartbeat = Heartbeat(S, 0.0)
    heartbeat.look(20.0, received_at=0.0, sent_bytes=0, reading=True)
    assert heartbeat.look(300.0, received_at=0.0, sent_bytes=0, reading=False) == Beat("wait", S)
    assert heartbeat.look(310.0, received_at=0.0, sent_bytes=0, reading=True) == Beat("wait", 10.0)


@given(st.lists(st.tuples(st.floats(0.01, 30), st.booleans(), st.integers(0, 100_000)), max_size=40))
def test_a_peer_is_given_up_only_after_two_silent_intervals(steps: list[tuple[float, bool, int]]) -> None:
    heartbeat, now, life_at, sent = Heartbeat(S, 0.0), 0.0, 0.0, 0
    for elapsed, came, written in steps:
        now, sent = now + elapsed, sent + written
        life_at = now if came else life_at
        beat = heartbeat.look(now, received_at=life_at, sent_bytes=sent, reading=True)
        if beat.action == "dead":
            assert now - life_at >= 2 * S
            return
        assert 0 < beat.again_s <= S or sent
