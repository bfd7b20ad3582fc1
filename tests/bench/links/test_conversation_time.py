"""A computed conversation takes what the formula, the rates and the emulation say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from segue.bench.links import conversation_time
from segue.bench.links.conversation_time import TurnLoad, compute_task
from segue.bench.links.profiles import LINKS, NamedLink
from segue.bench.links.transfer_time import transfer_time_s
from segue.testing.pacing import LinkProfile
from tests.strategies import examples

LOSSLESS = [link for link in LINKS.values() if not link.loss]
TURNS = st.lists(
    st.builds(TurnLoad, st.integers(1, 60_000), st.integers(1, 40_000), st.integers(0, 300)), min_size=1, max_size=6
)


def near(seconds: float) -> object:
    return pytest.approx(seconds, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("link", LOSSLESS, ids=lambda link: link.name)
@pytest.mark.parametrize("size", [1, 1460, 14_600, 50_000, 400_000])
def test_one_request_and_one_short_answer_are_two_transfers(link: NamedLink, size: int) -> None:
    profile = link.profile
    assert profile.up_bytes_s is not None
    assert profile.down_bytes_s is not None
    computed = compute_task([TurnLoad(size, 900, 0)], profile, setup_rtts=2, tokens_s=None)
    asked = transfer_time_s(profile, profile.up_bytes_s, size, age="new")
    answered = transfer_time_s(profile, profile.down_bytes_s, 900, age="idle")
    assert computed.task_s == near(asked + answered)
    assert computed.turns[0].ttft_s == near(asked + answered)


def test_a_slow_model_writes_for_tokens_over_speed() -> None:
    """2,000 bytes up, then 130 tokens at 65 a second: the wire is idle in between, and adds half a round trip each."""
    profile = LinkProfile(rtt_s=0.1, up_bytes_s=100_000, down_bytes_s=100_000, slow_start=True)
    turn = TurnLoad(1000, 13_000, 130)
    computed = compute_task([turn, turn], profile, setup_rtts=1, tokens_s=65)
    one = 1000 / 100_000 + 0.05 + 2.0 + 100 / 100_000 + 0.05
    assert computed.turns[0].time_s == near(0.1 + one)
    assert computed.turns[1].time_s == near(one)
    assert computed.turns[1].ttft_s == near(one - 2.0 + 1 / 65)
    assert computed.turns[1].at_s == near(computed.turns[0].time_s)


def test_a_link_slower_than_the_model_decides() -> None:
    profile = LinkProfile(rtt_s=0.0, down_bytes_s=1000)
    computed = compute_task([TurnLoad(1, 10_000, 100)], profile, setup_rtts=0, tokens_s=1000)
    assert computed.task_s == near(10.0 + 1 / 1000)


@pytest.mark.parametrize("link", LINKS.values(), ids=lambda link: link.name)
@pytest.mark.parametrize("speed", [65.0, 1000.0])
def test_tokens_that_travel_together_change_next_to_nothing(
    link: NamedLink, speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lossless = replace(link.profile, loss=0.0)
    turns = [TurnLoad(3200, 155 * 230, 155)] * 3
    together = compute_task(turns, lossless, setup_rtts=2, tokens_s=speed)
    monkeypatch.setattr(conversation_time, "SEGMENT_BYTES", 1)
    alone = compute_task(turns, lossless, setup_rtts=2, tokens_s=speed)
    assert together.task_s == pytest.approx(alone.task_s, rel=0.02)
    assert together.turns[0].ttft_s == near(alone.turns[0].ttft_s)


@given(down=st.integers(1, 60_000), tokens=st.integers(1, 400), together=st.integers(1, 2000))
@settings(max_examples=examples(60), deadline=None)
def test_pieces_have_every_byte_the_first_token_and_the_last(down: int, tokens: int, together: int) -> None:
    turn = TurnLoad(1, down, tokens)
    pieces = conversation_time.pieces_of(turn, 5.0, tokens_s=10.0, together=together)
    assert sum(size for _, size in pieces) == down
    assert pieces == sorted(pieces)
    assert pieces[-1][0] == near(5.0 + tokens / 10)
    each = -(-down // tokens)
    assert all(0 < size <= max(together, each) + each for _, size in pieces)
    if down >= tokens:
        assert pieces[0] == (near(5.1), down // tokens)
        assert pieces[-1][1] <= each


def test_losses_make_it_later_and_differ_by_seed() -> None:
    clean = LinkProfile(rtt_s=0.3, up_bytes_s=20_000, down_bytes_s=50_000, slow_start=True)
    turns = [TurnLoad(30_000, 5000, 50)] * 4
    alone = compute_task(turns, clean, setup_rtts=2, tokens_s=100).task_s
    lossy = [
        compute_task(
            turns,
            LinkProfile(rtt_s=0.3, up_bytes_s=20_000, down_bytes_s=50_000, slow_start=True, loss=0.05, seed=seed),
            setup_rtts=2,
            tokens_s=100,
        ).task_s
        for seed in range(5)
    ]
    assert min(lossy) > alone
    assert len(set(lossy)) == 5


@settings(max_examples=examples(60), deadline=None)
@given(turns=TURNS, link=st.sampled_from(LOSSLESS), speed=st.sampled_from([None, 65.0, 1000.0]))
def test_turns_follow_each_other_and_nothing_is_faster_than_light_or_rate(
    turns: list[TurnLoad], link: NamedLink, speed: float | None
) -> None:
    profile = link.profile
    assert profile.up_bytes_s is not None
    assert profile.down_bytes_s is not None
    computed = compute_task(turns, profile, setup_rtts=2, tokens_s=speed)
    at = 0.0
    for number, (turn, one) in enumerate(zip(turns, computed.turns, strict=True)):
        assert one.at_s == near(at)
        assert 0 < one.ttft_s <= one.time_s
        least = profile.rtt_s * (1 if number else 3) + turn.up_bytes / profile.up_bytes_s
        writing = 0.0 if speed is None else turn.tokens / speed
        assert one.time_s >= (least + max(writing, turn.down_bytes / profile.down_bytes_s)) * (1 - 1e-9)
        at += one.time_s


def test_less_to_send_never_takes_longer() -> None:
    for link in LOSSLESS:
        sizes = [3200 * (number + 1) for number in range(10)]
        replay = compute_task([TurnLoad(n, 10_000, 155) for n in sizes], link.profile, setup_rtts=2, tokens_s=1000)
        delta = compute_task([TurnLoad(3200, 10_000, 155)] * 10, link.profile, setup_rtts=2, tokens_s=1000)
        assert delta.task_s <= replay.task_s
