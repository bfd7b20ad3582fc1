"""Conversations are rearranged for what templates do not support, and no text is lost."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine.prompt.messages import PromptMessage, ToolCall
from segue.engine.prompt.normalize import TemplateCapabilities, normalize
from tests.strategies import examples

capabilities = st.builds(TemplateCapabilities)
texts = st.sampled_from(["", "a", "b\n", "c"])
calls = st.lists(st.builds(ToolCall, texts, texts, texts), max_size=3).map(tuple)
messages = st.one_of(
    st.builds(PromptMessage, st.sampled_from(["system", "user", "tool"]), texts),
    st.builds(PromptMessage, st.just("assistant"), texts, calls),
)


@settings(max_examples=examples(300))
@given(st.lists(messages, max_size=8), capabilities)
def test_nothing_is_lost_or_moved(said: list[PromptMessage], supported: TemplateCapabilities) -> None:
    """For any conversation and capabilities: all that was said and called is there, in its order."""
    arranged = normalize(said, supported)
    written = "".join(message.text.replace("\n\n", "") for message in arranged)
    assert written.replace("\n", "") == "".join(message.text.replace("\n", "") for message in said)
    assert [call for one in arranged for call in one.calls] == [call for one in said for call in one.calls]
    assert [one for one in arranged if one.role == "tool"] == [one for one in said if one.role == "tool"]


@settings(max_examples=examples(300))
@given(st.lists(messages, max_size=8), capabilities)
def test_what_a_template_does_not_take_is_gone(said: list[PromptMessage], supported: TemplateCapabilities) -> None:
    arranged = normalize(said, supported)
    places = [index for index, one in enumerate(arranged) if one.role == "system"]
    pairs = list(pairwise(arranged))
    if supported.system_messages != "anywhere":
        assert places == [] or (supported.system_messages == "first" and places == [0])
    if not supported.parallel_calls:
        assert all(len(one.calls) <= 1 for one in arranged)
    if not supported.text_with_calls:
        assert not any(one.text and one.calls for one in arranged)
    if not supported.repeated_roles:
        assert not any(one.role == two.role == "user" for one, two in pairs)
    if not supported.user_after_outputs:
        assert not any((one.role, two.role) == ("tool", "user") for one, two in pairs)


@settings(max_examples=examples(300))
@given(st.lists(messages, max_size=6), st.lists(messages, max_size=4), capabilities)
def test_what_comes_behind_an_answer_changes_nothing_before_it(
    before: list[PromptMessage], behind: list[PromptMessage], supported: TemplateCapabilities
) -> None:
    """So what a turn adds is arranged alike behind all that may stand before."""
    asked = [*before, PromptMessage("user", "q")] if before and before[-1].role == "assistant" else before
    answer = PromptMessage("assistant", "a", (ToolCall("c", "f", "{}"),))
    alone = normalize(asked, supported)
    assert normalize([*asked, answer, *behind], supported)[: len(alone)] == alone


def test_instructions_alone_are_said_by_the_user() -> None:
    """Since many templates write no system message that no question follows."""
    assert normalize([PromptMessage("system", "a")], TemplateCapabilities(system_messages="first")) == [
        PromptMessage("user", "a")
    ]


def test_what_a_template_takes_is_left_alone() -> None:
    said = [
        PromptMessage("system", "a"),
        PromptMessage("user", "b"),
        PromptMessage("user", "c"),
        PromptMessage("system", "d"),
    ]
    assert normalize(said, TemplateCapabilities()) == said
