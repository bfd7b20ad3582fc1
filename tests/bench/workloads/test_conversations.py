"""Generated conversations are the same each time, and have the sizes that were published."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.workloads.conversations import (
    CONVERSATION_SOURCES,
    LENGTHS,
    SHAPES,
    TOKEN_BYTES,
    make_conversation,
    place_of,
    shape_of,
)
from segue.testing.replies import compact
from tests.strategies import examples


def test_a_conversation_is_the_same_each_time_and_another_task_shares_instructions_and_tools() -> None:
    made = make_conversation("article")
    assert made == make_conversation("article")
    other = make_conversation("article", task=1)
    assert (other.instructions, other.tools) == (made.instructions, made.tools)
    assert other.prompt != made.prompt
    assert other.turns != made.turns


@pytest.mark.parametrize("name", ["article", "loop-12", "conversation:5"])
def test_every_turn_but_the_last_calls_and_has_the_sizes_of_its_shape(name: str) -> None:
    shape, made = shape_of(name), make_conversation(name)
    assert shape is not None
    *turns, last = made.turns
    assert len(made.turns) == shape.turns
    assert last.calls == ()
    for turn in turns:
        assert sum(len(call.arguments) for call in turn.calls) >= shape.argument_tokens * TOKEN_BYTES * 0.8
        for call in turn.calls:
            assert abs(len(compact(call.result)) - 2 - shape.result_bytes / shape.calls) <= 2
            assert call.name in {tool["name"] for tool in made.tools} | {"run"}
    assert len({call.call_id for turn in turns for call in turn.calls}) == sum(len(turn.calls) for turn in turns)


def test_long_conversations_have_the_published_means_and_times_between_the_quantiles() -> None:
    made = make_conversation("conversation:84")
    *turns, _ = made.turns
    calls = [call for turn in turns for call in turn.calls]
    assert len(calls) / len(turns) == pytest.approx(1.21, abs=0.02)
    written = sum(len(turn.text) for turn in turns) + sum(len(call.arguments) for call in calls)
    assert written / TOKEN_BYTES / len(turns) == pytest.approx(523, rel=0.03)
    assert sum(len(compact(call.result)) for call in calls) / TOKEN_BYTES / len(turns) == pytest.approx(681, rel=0.07)
    seconds = sorted(call.seconds for call in calls)
    assert 0.05 < seconds[0] < seconds[len(seconds) // 3] < 0.3 < seconds[-len(seconds) // 3] < seconds[-1] < 13.7


@pytest.mark.parametrize(
    ("name", "turns"),
    [("article", 10), ("loop-12", 12), *((f"conversation:{count}", count) for count in LENGTHS), ("conversation:2", 2)],
)
def test_a_name_has_a_shape(name: str, turns: int) -> None:
    shape = shape_of(name)
    assert shape is not None
    assert shape.turns == turns


@pytest.mark.parametrize(
    "name", ["", "none", "conversation", "conversation:", "conversation:1", "conversation:1001", "conversation:10x"]
)
def test_other_names_have_none(name: str) -> None:
    assert shape_of(name) is None


def test_every_number_has_a_source() -> None:
    used = {source for shape in SHAPES.values() for source in shape.sources}
    assert used == set(CONVERSATION_SOURCES)
    assert all(shape.sources and shape.chosen for shape in SHAPES.values())


@settings(max_examples=examples(30))
@given(st.integers(0, 200), st.integers(0, 999), st.integers(0, 3))
def test_the_newest_items_tell_the_place(task: int, number: int, place: int) -> None:
    result = b'{"type":"function_call_output","call_id":"call_%d_%d_%d","output":"task_9_0"}' % (task, number, place)
    assert place_of([b'{"role":"user","content":"task_7_0 Do it."}', result]) == (task, number + 1)


def test_the_prompt_tells_the_first_place_and_other_items_none() -> None:
    assert place_of([b'{"role":"user","content":"task_7_0 Do it."}']) == (7, 0)
    assert place_of([]) is None
    assert place_of([b'{"role":"user","content":"Hello."}']) is None
