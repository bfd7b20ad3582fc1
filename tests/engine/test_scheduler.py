"""The scheduler of the local engine: answers never stall, and what is left is divided evenly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.engine.scheduler import Scheduler, Share, divide

prompts = st.lists(st.integers(0, 40), max_size=12)


def scheduler(unread: list[int], *, batch: int, chunk: int) -> Scheduler[int]:
    made: Scheduler[int] = Scheduler(batch, chunk)
    for key, count in enumerate(unread):
        made.add(key, count)
    return made


def test_an_answer_gets_a_token_of_every_step() -> None:
    """However much the others have to read."""
    steps = scheduler([0, 1000, 0], batch=16, chunk=4)
    for _ in range(3):
        assert steps.step() == [Share(0, 1, sampled=True), Share(2, 1, sampled=True), Share(1, 4, sampled=False)]


def test_alone_a_prompt_is_read_in_whole_batches() -> None:
    """The chunk is only for the sake of those who answer."""
    steps = scheduler([40], batch=16, chunk=4)
    assert [steps.step()[0] for _ in range(3)] == [
        Share(0, 16, sampled=False),
        Share(0, 16, sampled=False),
        Share(0, 8, sampled=True),
    ]
    assert steps.step() == [Share(0, 1, sampled=True)]


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    """It is read in the first step that it takes part in."""
    steps = scheduler([1000], batch=16, chunk=16)
    steps.step()
    steps.add(1, 7)
    assert Share(1, 7, sampled=True) in steps.step()


def test_a_turn_that_was_removed_gets_nothing() -> None:
    steps = scheduler([5, 5], batch=16, chunk=4)
    steps.remove(0)
    assert [share.key for share in steps.step()] == [1]
    assert len(steps) == 1


@given(prompts, st.integers(1, 32), st.data())
def test_a_step_is_full_but_never_too_full(unread: list[int], batch: int, data: st.DataObject) -> None:
    """For any turns: nobody gets more than it has, and nothing that could be computed is left out."""
    chunk = data.draw(st.integers(1, batch))
    shares = scheduler(unread, batch=batch, chunk=chunk).step()
    answering = [share for share in shares if not unread[share.key]]
    reading = [share for share in shares if unread[share.key]]
    assert len(answering) == min(batch, unread.count(0))
    assert all(share == Share(share.key, 1, sampled=True) for share in answering)
    room = batch - len(answering)
    assert sum(share.tokens for share in reading) == min(sum(unread), min(room, chunk) if answering else room)
    assert all(1 <= share.tokens <= unread[share.key] for share in reading)
    assert all(share.sampled == (share.tokens == unread[share.key]) for share in reading)


@given(prompts, st.integers(1, 8))
def test_every_prompt_is_read_in_the_end(unread: list[int], batch: int) -> None:
    """For any turns: none is ever passed over for good, though there may be more of them than tokens in a step."""
    steps = scheduler(unread, batch=batch, chunk=batch)
    answered = {key for key, count in enumerate(unread) if not count}
    for key in answered:
        steps.remove(key)
    read = dict.fromkeys(range(len(unread)), 0)
    for _ in range(sum(unread) // batch + 1):
        for share in steps.step():
            read[share.key] += share.tokens
            if share.sampled:
                steps.remove(share.key)
    assert list(read.values()) == unread
    assert not len(steps)


@given(st.dictionaries(st.integers(), st.integers(1, 50), max_size=10), st.integers(0, 100))
def test_division_is_fair(wanted: dict[int, int], room: int) -> None:
    """For any wants: whoever got less than it wants got as much as anybody, but for one token."""
    parts = divide(wanted, room)
    assert sum(parts.values()) == min(room, sum(wanted.values()))
    most = max(parts.values(), default=0)
    assert all(parts.get(key, 0) in {size, most, most - 1} for key, size in wanted.items())
