"""What templates do not take is arranged, and nothing is lost by it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine.prompt.messages import Message, ToolCall
from segue.engine.prompt.normalize import Habits, adapt

habits = st.builds(Habits)
texts = st.sampled_from(["", "a", "b\n", "c"])
calls = st.lists(st.builds(ToolCall, texts, texts, texts), max_size=3).map(tuple)
messages = st.one_of(
    st.builds(Message, st.sampled_from(["system", "user", "tool"]), texts),
    st.builds(Message, st.just("assistant"), texts, calls),
)


@settings(max_examples=300)
@given(st.lists(messages, max_size=8), habits)
def test_nothing_is_lost_or_moved(said: list[Message], kept: Habits) -> None:
    """For any conversation and habits: all that was said and called is there, in its order."""
    arranged = adapt(said, kept)
    written = "".join(message.text.replace("\n\n", "") for message in arranged)
    assert written.replace("\n", "") == "".join(message.text.replace("\n", "") for message in said)
    assert [call for one in arranged for call in one.calls] == [call for one in said for call in one.calls]
    assert [one for one in arranged if one.role == "tool"] == [one for one in said if one.role == "tool"]


@settings(max_examples=300)
@given(st.lists(messages, max_size=8), habits)
def test_what_a_template_does_not_take_is_gone(said: list[Message], kept: Habits) -> None:
    arranged = adapt(said, kept)
    systems = [index for index, one in enumerate(arranged) if one.role == "system"]
    pairs = list(pairwise(arranged))
    if kept.systems != "anywhere":
        assert systems == [] or (kept.systems == "first" and systems == [0])
    if not kept.many_calls:
        assert all(len(one.calls) <= 1 for one in arranged)
    if not kept.text_with_calls:
        assert not any(one.text and one.calls for one in arranged)
    if not kept.neighbours:
        assert not any(one.role == two.role == "user" for one, two in pairs)
    if not kept.user_behind_outputs:
        assert not any((one.role, two.role) == ("tool", "user") for one, two in pairs)


@settings(max_examples=300)
@given(st.lists(messages, max_size=6), st.lists(messages, max_size=4), habits)
def test_what_comes_behind_an_answer_changes_nothing_before_it(
    before: list[Message], behind: list[Message], kept: Habits
) -> None:
    """So what a turn adds is arranged alike behind all that may stand before."""
    asked = [*before, Message("user", "q")] if before and before[-1].role == "assistant" else before
    answer = Message("assistant", "a", (ToolCall("c", "f", "{}"),))
    alone = adapt(asked, kept)
    assert adapt([*asked, answer, *behind], kept)[: len(alone)] == alone


def test_instructions_alone_are_said_by_the_user() -> None:
    """Since many templates write no system message that no question follows."""
    assert adapt([Message("system", "a")], Habits(systems="first")) == [Message("user", "a")]


def test_what_a_template_takes_is_left_alone() -> None:
    said = [Message("system", "a"), Message("user", "b"), Message("user", "c"), Message("system", "d")]
    assert adapt(said, Habits()) == said
