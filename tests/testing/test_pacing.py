"""The pacer says when bytes arrive; all in computed time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.testing.pacing import (
    INITIAL_WINDOW_BYTES,
    MIN_TIMEOUT_S,
    SEGMENT_BYTES,
    Arrival,
    ArrivalKind,
    LinkProfile,
    Outage,
    Pacer,
)
from tests.strategies import examples


def make_pacer(profile: LinkProfile, rate: float | None = None) -> Pacer:
    """A pacer with connection 1 open and its handshake done."""
    pacer = Pacer(profile, rate, "up", 0.0)
    pacer.open(1, -10.0)
    assert pacer.arrived(0.0) == [Arrival(1, "open", 0)]
    return pacer


def run(pacer: Pacer, until: float = 1e9) -> list[tuple[float, Arrival]]:
    """Let computed time pass; everything that arrives, and when."""
    arrived: list[tuple[float, Arrival]] = []
    at = 0.0
    while (next_at := pacer.next_at()) is not None and next_at <= until:
        at = max(at, next_at)
        arrived += [(round(at, 9), arrival) for arrival in pacer.arrived(at)]
    return arrived


def first_loses(count: int) -> int:
    """Return the seed with which a link that loses half of all loses the first segment exactly so many times."""

    def losses(seed: int) -> int:
        drawn = random.Random(f"{seed}:up:1")
        return next(number for number in range(100) if drawn.random() >= 0.5)

    return next(seed for seed in range(1000) if losses(seed) == count)


def at(seconds: float, what: ArrivalKind = "bytes", size: int = 0) -> tuple[float, Arrival]:
    return round(seconds, 9), Arrival(1, what, size)


def sizes(arrived: list[tuple[float, Arrival]], flow: int = 1) -> int:
    return sum(one.size for _, one in arrived if one.flow == flow)


def test_a_wire_passes_everything_at_once() -> None:
    pacer = Pacer(LinkProfile(), None, "up", 0.0)
    pacer.open(1, 5.0)
    pacer.send(1, 100_000, 5.0)
    pacer.end(1, 5.0)
    assert pacer.arrived(5.0) == [Arrival(1, "open", 0), Arrival(1, "bytes", 100_000), Arrival(1, "end", 0)]
    assert pacer.arrived(5.0) == []
    assert pacer.next_at() is None


def test_bytes_take_half_a_round_trip() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=0.5))
    pacer.send(1, 10, 1.0)
    assert pacer.arrived(1.24) == []
    assert pacer.next_at() == 1.25
    assert pacer.arrived(1.25) == [Arrival(1, "bytes", 10)]


@pytest.mark.parametrize(("round_trips", "opened_at"), [(0.0, 0.0), (1.0, 0.4), (2.0, 0.8)])
def test_a_connection_opens_after_its_handshake_and_bytes_wait_for_it(round_trips: float, opened_at: float) -> None:
    pacer = Pacer(LinkProfile(rtt_s=0.4, setup_rtts=round_trips), None, "up", 0.0)
    pacer.open(1, 0.0)
    pacer.send(1, 10, 0.0)
    assert run(pacer) == [at(opened_at, "open"), at(opened_at + 0.2, size=10)]


def test_the_rate_limits() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=0.1, up_bytes_s=20_000), 20_000)
    pacer.send(1, 1_000_000, 0.0)
    arrived = run(pacer)
    assert sizes(arrived) == 1_000_000
    assert arrived[-1][0] == pytest.approx(50.05)


def test_what_does_not_fit_the_buffer_waits_at_the_sender() -> None:
    pacer = make_pacer(LinkProfile(up_bytes_s=10_000, buffer_bytes=14_600), 10_000)
    pacer.send(1, 146_000, 0.0)
    assert pacer.unsent(1) == 146_000 - 14_600
    pacer.arrived(1.46)
    assert pacer.unsent(1) == 146_000 - 2 * 14_600


def test_a_small_write_overtakes_a_large_one_of_another_connection() -> None:
    pacer = make_pacer(LinkProfile(up_bytes_s=20_000, buffer_bytes=4 * SEGMENT_BYTES), 20_000)
    pacer.open(2, 0.0)
    pacer.send(1, 1_000_000, 0.0)
    pacer.send(2, 10, 0.0)
    arrived = run(pacer)
    (at,) = (at for at, one in arrived if one == Arrival(2, "bytes", 10))
    assert at < 0.5


def test_slow_start_doubles_per_round_trip() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=1.0, slow_start=True))
    pacer.send(1, 7 * INITIAL_WINDOW_BYTES, 0.0)
    arrived = run(pacer)
    per_trip = [sizes([one for one in arrived if one[0] == at]) for at in (0.5, 1.5, 2.5)]
    assert per_trip == [INITIAL_WINDOW_BYTES, 2 * INITIAL_WINDOW_BYTES, 4 * INITIAL_WINDOW_BYTES]


def test_slow_start_begins_again_after_idling() -> None:
    def time_to_send(at: float) -> float:
        pacer.send(1, 3 * INITIAL_WINDOW_BYTES, at)
        last = at
        while (next_at := pacer.next_at()) is not None:
            last = next_at if pacer.arrived(next_at) else last
        return last - at

    pacer = make_pacer(LinkProfile(rtt_s=0.3, slow_start=True))
    assert time_to_send(0.0) == pytest.approx(0.45)
    assert time_to_send(0.61) == pytest.approx(0.15)
    assert time_to_send(10.0) == pytest.approx(0.45)


def test_the_window_bounds_what_is_unacknowledged() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=1.0, window_bytes=1000))
    pacer.send(1, 2400, 0.0)
    assert [(at, one.size) for at, one in run(pacer)] == [(0.5, 1000), (1.5, 1000), (2.5, 400)]


def test_a_lost_segment_is_late_and_nothing_overtakes_it() -> None:
    profile = LinkProfile(rtt_s=0.1, loss=0.05, seed=3)
    pacer = make_pacer(profile)
    pacer.send(1, 100 * SEGMENT_BYTES, 0.0)
    times = [at for at, _ in run(pacer)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(0.05)
    assert {round(at, 6) for at in times} == {0.05, 0.15}


def test_a_lost_last_segment_waits_for_the_timeout() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=0.1, loss=0.5, seed=first_loses(1)))
    pacer.send(1, 10, 0.0)
    assert run(pacer) == [at(0.05 + 0.1 + MIN_TIMEOUT_S, size=10)]


@pytest.mark.parametrize(("lost", "late_s"), [(2, 0.3 + 0.6), (3, 0.3 + 0.6 + 1.2), (4, 0.3 + 0.6 + 1.2 + 2.4)])
def test_what_is_repeated_is_lost_again_and_the_timeout_doubles(lost: int, late_s: float) -> None:
    """RFC 6298, 5.5."""
    pacer = make_pacer(LinkProfile(rtt_s=0.1, loss=0.5, seed=first_loses(lost)))
    pacer.send(1, 10, 0.0)
    assert run(pacer) == [at(0.05 + late_s, size=10)]


def test_a_link_that_loses_everything_still_delivers() -> None:
    """Late: a sender gives up after the timeout has grown to a minute, and this link passes the segment then."""
    pacer = make_pacer(LinkProfile(rtt_s=0.1, loss=1.0))
    pacer.send(1, 10, 0.0)
    ((arrived_at, one),) = run(pacer)
    assert one.size == 10
    assert 60 < arrived_at < 120


@pytest.mark.parametrize("rtt_s", [0.0, 0.044, 0.79])
def test_the_timeout_is_a_round_trip_and_the_least_variance(rtt_s: float) -> None:
    """As of RFC 6298, 2.3, with the least of Linux, on a link whose round trip does not vary."""
    assert LinkProfile(rtt_s=rtt_s).timeout_s == pytest.approx(rtt_s + 0.2)


def test_a_window_that_is_not_used_does_not_grow() -> None:
    """A stream of small events leaves the connection as it was (RFC 7661, 3; `tcp_is_cwnd_limited` of Linux)."""
    pacer = make_pacer(LinkProfile(rtt_s=0.1, slow_start=True))
    at = 0.0
    for _ in range(1000):
        pacer.send(1, 1000, at)
        at += 0.11
        pacer.arrived(at)
    pacer.send(1, 7 * INITIAL_WINDOW_BYTES, at)
    arrived = run(pacer)
    assert sizes([one for one in arrived if one[0] < at + 0.1]) == INITIAL_WINDOW_BYTES
    assert sizes(arrived) == 7 * INITIAL_WINDOW_BYTES


def test_a_window_grows_to_twice_what_was_in_flight() -> None:
    """Whatever the burst, the next one begins with the window that the acknowledgements of this one opened."""
    pacer = make_pacer(LinkProfile(rtt_s=0.1, slow_start=True))
    pacer.send(1, 3 * INITIAL_WINDOW_BYTES, 0.0)
    assert [at for at, _ in run(pacer)][-1] == pytest.approx(0.15)
    pacer.send(1, 9 * INITIAL_WINDOW_BYTES, 0.3)
    at_once = sizes([one for one in run(pacer) if one[0] < 0.36])
    assert at_once == 4 * INITIAL_WINDOW_BYTES


def test_losses_of_one_window_halve_it_once() -> None:
    """RFC 6582: one reduction per recovery, however many segments of the window were lost."""
    profile = LinkProfile(rtt_s=0.1, slow_start=True, loss=1.0)
    pacer = make_pacer(profile)
    pacer.send(1, 5 * SEGMENT_BYTES, 0.0)
    taken = run(pacer)[-1][0]
    pacer.send(1, 20 * SEGMENT_BYTES, taken + 0.1)
    waiting = pacer.unsent(1)
    assert 20 * SEGMENT_BYTES - waiting == 5 * SEGMENT_BYTES


def test_losses_are_those_of_the_seed() -> None:
    def times(seed: int) -> list[float]:
        pacer = make_pacer(LinkProfile(rtt_s=0.1, loss=0.1, up_bytes_s=1e5, slow_start=True, seed=seed), 1e5)
        pacer.send(1, 200_000, 0.0)
        return [at for at, _ in run(pacer)]

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_nothing_moves_in_an_outage() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=0.2, up_bytes_s=4000, outages=(Outage(1.0, 5.0),)), 4000)
    pacer.send(1, 10_000, 0.0)
    arrived = run(pacer)
    assert not [at for at, _ in arrived if 1.0 <= at < 6.0]
    assert sizes([one for one in arrived if one[0] < 1.0]) > 0
    assert sizes(arrived) == 10_000
    pacer.open(2, 3.0)
    assert pacer.next_at() == 6.0


def test_nothing_moves_while_stopped_and_all_goes_on_after_it() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=0.2))
    pacer.send(1, 10, 0.0)
    pacer.stop()
    pacer.send(1, 20, 0.0)
    pacer.end(1, 0.0, "reset")
    assert pacer.next_at() is None
    assert pacer.arrived(100.0) == []
    pacer.resume(100.0)
    assert run(pacer) == [at(100.0, size=10), at(100.1, size=20), at(100.1, "reset")]


def test_a_held_connection_takes_nothing_and_fills_its_window() -> None:
    pacer = make_pacer(LinkProfile(window_bytes=1000))
    pacer.hold(1)
    pacer.send(1, 5000, 0.0)
    pacer.end(1, 0.0)
    assert pacer.arrived(1.0) == []
    assert pacer.unsent(1) == 4000
    pacer.release(1, 2.0)
    arrived = pacer.arrived(2.0)
    assert sum(one.size for one in arrived) == 5000
    assert arrived[-1] == Arrival(1, "end", 0)


def test_a_dropped_connection_says_nothing_more() -> None:
    pacer = make_pacer(LinkProfile(rtt_s=0.2, up_bytes_s=10_000), 10_000)
    pacer.send(1, 100_000, 0.0)
    pacer.drop(1)
    assert run(pacer) == []
    assert pacer.unsent(1) == 0


profiles = st.builds(
    LinkProfile,
    rtt_s=st.sampled_from([0.0, 0.05, 0.6]),
    up_bytes_s=st.sampled_from([None, 5_000.0, 1e6]),
    buffer_bytes=st.integers(1, 100_000),
    loss=st.sampled_from([0.0, 0.02, 0.5]),
    slow_start=st.booleans(),
    window_bytes=st.integers(SEGMENT_BYTES, 200_000),
    outages=st.lists(
        st.builds(Outage, begin_s=st.floats(0, 20), length_s=st.floats(0, 20)),
        max_size=3,
        unique_by=lambda o: o.begin_s,
    ).map(tuple),
)


@settings(max_examples=examples(200))
@given(profiles, st.lists(st.tuples(st.integers(1, 3), st.integers(1, 30_000), st.floats(0, 3)), max_size=12))
def test_everything_arrives_once_in_order_and_ends(profile: LinkProfile, writes: list[tuple[int, int, float]]) -> None:
    pacer = Pacer(profile, profile.up_bytes_s, "up", 0.0)
    for flow in (1, 2, 3):
        pacer.open(flow, 0.0)
    at, arrived = 0.0, list[Arrival]()
    for flow, size, pause in writes:
        pacer.send(flow, size, at)
        at += pause
        arrived += pacer.arrived(at)
    for flow in (1, 2, 3):
        pacer.end(flow, at)
    arrived += [one for _, one in run(pacer)]
    for flow in (1, 2, 3):
        ours = [one for one in arrived if one.flow == flow]
        assert [one.what for one in (ours[0], ours[-1])] == ["open", "end"]
        assert {one.what for one in ours[1:-1]} <= {"bytes"}
        assert sum(one.size for one in ours) == sum(size for to, size, _ in writes if to == flow)
