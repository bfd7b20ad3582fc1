"""The closed formula and the emulation say the same of every link, from cold and from warm."""

from __future__ import annotations

from math import inf
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.links.profiles import LINKS
from segue.bench.links.transfer_time import ConnectionAge, transfer_time_s
from segue.testing.pacing import INITIAL_WINDOW_BYTES, SEGMENT_BYTES, LinkProfile, Pacer
from tests.strategies import examples

AGES: tuple[ConnectionAge, ...] = ("new", "idle", "warm")


def last_arrival(pacer: Pacer, at: float) -> float:
    """Let time pass until all has arrived; return when the last bytes did."""
    last = at
    while (next_at := pacer.next_at()) is not None:
        at = max(at, next_at)
        if any(arrival.what == "bytes" for arrival in pacer.arrived(at)):
            last = at
    return last


def emulated_s(profile: LinkProfile, rate: float, size: int, *, age: ConnectionAge) -> float:
    """Measure the emulation, in computed time."""
    warm = msgspec.structs.replace(profile, slow_start=profile.slow_start and age != "warm")
    pacer = Pacer(warm, rate, "up", 0.0)
    pacer.open(1, 0.0)
    at = 0.0
    if age != "new":
        last_arrival(pacer, 0.0)
        pacer.send(1, 1, 1000.0)
        last_arrival(pacer, 1000.0)
        at = 2000.0
    pacer.send(1, size, at)
    return last_arrival(pacer, at) - at


@pytest.mark.untraced
@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("size", [1, SEGMENT_BYTES, 3_200, 32_000, 176_000, 480_000])
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("name", LINKS)
def test_the_emulation_of_each_link_agrees(
    name: str, direction: Literal["up", "down"], size: int, age: ConnectionAge
) -> None:
    profile = msgspec.structs.replace(LINKS[name].profile, loss=0.0)
    rate = profile.up_bytes_s if direction == "up" else profile.down_bytes_s
    assert rate is not None
    assert emulated_s(profile, rate, size, age=age) == pytest.approx(transfer_time_s(profile, rate, size, age=age))


@settings(max_examples=examples(300))
@given(
    profile=st.builds(
        LinkProfile,
        rtt_s=st.floats(0.0005, 2),
        up_bytes_s=st.just(1.0),
        setup_rtts=st.sampled_from([0.0, 1.0, 2.0]),
        slow_start=st.booleans(),
        window_bytes=st.integers(10, 300).map(lambda segments: segments * SEGMENT_BYTES),
    ),
    rate=st.floats(2_000, 2e8),
    size=st.integers(1, 1_000_000),
    age=st.sampled_from(AGES),
)
def test_the_emulation_of_any_link_agrees(profile: LinkProfile, rate: float, size: int, age: ConnectionAge) -> None:
    assert emulated_s(profile, rate, size, age=age) == pytest.approx(transfer_time_s(profile, rate, size, age=age))


@settings(max_examples=examples(100))
@given(seed=st.integers(0, 10_000), size=st.integers(1, 200_000))
def test_loss_makes_nothing_earlier(seed: int, size: int) -> None:
    profile = msgspec.structs.replace(LINKS["geo-in-flight-bad"].profile, seed=seed)
    assert profile.up_bytes_s is not None
    emulated = emulated_s(profile, profile.up_bytes_s, size, age="new")
    assert emulated >= transfer_time_s(profile, profile.up_bytes_s, size, age="new") * (1 - 1e-9)


@pytest.mark.untraced
@pytest.mark.parametrize("name", LINKS)
def test_a_connection_is_warm_behind_a_large_transfer(name: str) -> None:
    profile = msgspec.structs.replace(LINKS[name].profile, loss=0.0)
    assert profile.up_bytes_s is not None
    pacer = Pacer(profile, profile.up_bytes_s, "up", 0.0)
    pacer.open(1, 0.0)
    pacer.send(1, 4_000_000, 0.0)
    at = last_arrival(pacer, 0.0) + profile.rtt_s / 2
    pacer.send(1, 480_000, at)
    expected = transfer_time_s(profile, profile.up_bytes_s, 480_000, age="warm")
    assert last_arrival(pacer, at) - at == pytest.approx(expected)


def test_slow_start_by_hand() -> None:
    """70 KB at 10 Mbit/s and 100 ms: windows of 14.6, 29.2 and 26.2 KB, and two pauses."""
    profile = LinkProfile(rtt_s=0.1, setup_rtts=2, slow_start=True)
    pauses = (1460 + 0.1 * 1.25e6 - 14_600) + (1460 + 0.1 * 1.25e6 - 29_200)
    taken = 0.2 + 0.05 + (70_000 + pauses) / 1.25e6
    assert transfer_time_s(profile, 1.25e6, 70_000, age="new") == pytest.approx(taken)
    assert transfer_time_s(profile, 1.25e6, 70_000, age="idle") == pytest.approx(taken - 0.2)
    assert transfer_time_s(profile, 1.25e6, 70_000, age="warm") == pytest.approx(0.05 + 70_000 / 1.25e6)


def test_without_rate_only_round_trips_count() -> None:
    profile = LinkProfile(rtt_s=1.0, slow_start=True, setup_rtts=1)
    assert transfer_time_s(profile, inf, 7 * INITIAL_WINDOW_BYTES, age="new") == pytest.approx(1 + 2.5)


def test_nothing_takes_no_time_that_could_be_said() -> None:
    with pytest.raises(ValueError, match="nothing to send"):
        transfer_time_s(LinkProfile(), 1000.0, 0, age="new")
