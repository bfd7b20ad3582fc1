"""Items become the messages of a chat model, or are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from segue.engine.prompt.messages import (
    PromptMessage,
    ToolCall,
    check_settings,
    read_continuation,
    read_conversation,
    read_tools,
)
from segue.history.chains import History, Turn
from segue.protocol.ids import ResponseId
from segue.protocol.items import user_message
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings
from segue.testing.store_conformance import sample_id

SETTINGS = Settings(model="smollm2")
some_text = st.text()  # without surrogates, which no request can hold


def item(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def turn(parent: Turn | None, *items: bytes, output: tuple[bytes, ...] = (), name: str = "turn") -> Turn:
    ident: ResponseId = sample_id(name)
    return Turn(id=ident, parent=parent, input=items, output=output, calls=frozenset(), stored=True)


def messages(*items: bytes) -> list[PromptMessage]:
    """The messages that new items become."""
    return read_conversation(History(None, items), None).without(0)


def said(*items: bytes, instructions: str | None = None) -> list[tuple[str, str]]:
    """Roles and texts of the messages that new items become."""
    conversation = read_conversation(History(None, items), instructions)
    return [(message.role, message.text) for message in conversation.without(0)]


def refusal(*items: bytes, parent: Turn | None = None) -> Problem:
    with pytest.raises(Refused) as caught:
        read_conversation(History(parent, items), None)
    return caught.value.problem


class TestItems:
    def test_a_message_keeps_its_role_and_text(self) -> None:
        """User, assistant and system messages are shown as what they are."""
        items = [item(type="message", role=role, content="hello") for role in ("user", "assistant", "system")]
        assert said(*items) == [("user", "hello"), ("assistant", "hello"), ("system", "hello")]

    @pytest.mark.parametrize("fields", [{}, {"type": None}])
    def test_a_message_may_omit_its_type(self, fields: dict[str, None]) -> None:
        """An item without a type is a message."""
        assert said(item(role="user", content="hello", **fields)) == [("user", "hello")]

    def test_the_text_parts_of_a_message_are_lines(self) -> None:
        """All parts that are text are shown, refusals included."""
        parts = [
            {"type": "input_text", "text": "one"},
            {"type": "output_text", "text": "two", "annotations": []},
            {"type": "refusal", "refusal": "three"},
        ]
        assert said(item(type="message", role="assistant", content=parts)) == [("assistant", "one\ntwo\nthree")]

    def test_a_developer_speaks_as_the_system(self) -> None:
        """Chat templates know no developer."""
        assert said(item(role="developer", content="be brief")) == [("system", "be brief")]

    def test_instructions_come_first(self) -> None:
        """The instructions of the request are the first system message."""
        assert said(user_message("hi"), instructions="be brief") == [("system", "be brief"), ("user", "hi")]

    def test_no_instructions_add_no_message(self) -> None:
        """Absent or empty instructions are not shown as an empty message."""
        assert said(user_message("hi"), instructions="") == said(user_message("hi")) == [("user", "hi")]

    def test_a_tool_call_and_its_output_are_messages(self) -> None:
        """The call is the assistant's, and its output a tool's, which names the call that it answers."""
        call = item(type="function_call", call_id="c1", name="weather", arguments='{"city":"Paris"}')
        answer = item(type="function_call_output", call_id="c1", output="12 degrees")
        made = (ToolCall("c1", "weather", '{"city":"Paris"}'),)
        assert messages(call, answer) == [
            PromptMessage("assistant", "", made),
            PromptMessage("tool", "12 degrees", call_id="c1"),
        ]

    def test_arguments_are_an_object_whatever_the_model_wrote(self) -> None:
        """Templates go through their members; a call that was cut off would end the conversation."""
        calls = [item(type="function_call", call_id="c", name="f", arguments=text) for text in ("", '{"a": "lo')]
        (message,) = messages(*calls)
        assert [call.arguments for call in message.calls] == ["{}", '{"arguments":"{\\"a\\": \\"lo"}']

    def test_calls_belong_to_the_message_before_them(self) -> None:
        """A text and the calls behind it are what the model said in one go."""
        text = item(type="message", role="assistant", content="Let me see.")
        calls = [item(type="function_call", call_id=f"c{n}", name="f", arguments="{}") for n in (1, 2)]
        made = (ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}"))
        assert messages(text, *calls, text) == [
            PromptMessage("assistant", "Let me see.", made),
            PromptMessage("assistant", "Let me see."),
        ]

    def test_custom_tools_are_told_as_functions(self) -> None:
        """The input of a custom tool is one argument, and an output may be a list of parts."""
        call = item(type="custom_tool_call", call_id="c1", name="edit", input="+ line")
        answer = item(type="custom_tool_call_output", call_id="c1", output=[{"type": "input_text", "text": "done"}])
        made = (ToolCall("c1", "edit", '{"input":"+ line"}'),)
        assert messages(call, answer) == [
            PromptMessage("assistant", "", made),
            PromptMessage("tool", "done", call_id="c1"),
        ]

    def test_thoughts_belong_to_what_came_of_them(self) -> None:
        """In words: to the answer behind them, or to the calls; what nothing came of is gone."""
        thoughts = [item(type="reasoning", summary=[], content=[{"type": "reasoning_text", "text": t}]) for t in "ab"]
        text = item(type="message", role="assistant", content="A")
        call = item(type="function_call", call_id="c1", name="f", arguments="{}")
        made = (ToolCall("c1", "f", "{}"),)
        assert messages(thoughts[0], text) == [PromptMessage("assistant", "A", reasoning="a")]
        assert messages(*thoughts, call) == [PromptMessage("assistant", "", made, reasoning="a\n\nb")]
        assert messages(thoughts[0], text, thoughts[1], call) == [
            PromptMessage("assistant", "A", made, reasoning="a\n\nb")
        ]
        assert messages(thoughts[0], user_message("Q"), text) == [
            PromptMessage("user", "Q"),
            PromptMessage("assistant", "A"),
        ]

    def test_thoughts_come_back_as_a_summary_from_other_apis(self) -> None:
        """Chat Completions and Messages have no other field for them."""
        thought = item(type="reasoning", summary=[{"type": "summary_text", "text": "hm"}])
        text = item(type="message", role="assistant", content="A")
        assert messages(thought, text) == [PromptMessage("assistant", "A", reasoning="hm")]

    def test_a_summary_of_sealed_thoughts_is_left_out(self) -> None:
        """A model is not shown what another one has thought."""
        thought = item(type="reasoning", summary=[{"type": "summary_text", "text": "hm"}], encrypted_content="xyz")
        assert said(thought, user_message("hi")) == [("user", "hi")]

    def test_earlier_turns_come_before_the_input(self) -> None:
        """A history is read oldest first, input before output."""
        first = turn(None, user_message("one"), output=(item(role="assistant", content="two"),))
        second = turn(first, user_message("three"), output=(item(role="assistant", content="four"),))
        conversation = read_conversation(History(second, (user_message("five"),)), "be brief")
        texts = [message.text for message in conversation.without(0)]
        assert texts == ["be brief", "one", "two", "three", "four", "five"]
        assert [message.text for message in conversation.without(1)] == ["be brief", "three", "four", "five"]


class TestRefusals:
    @pytest.mark.parametrize(
        "bad",
        [
            item(role="user", content=[{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]),
            item(role="user", content=[{"type": "input_text", "text": "see"}, {"type": "input_file", "file_id": "f"}]),
            item(type="function_call_output", call_id="c1", output=[{"type": "input_image", "image_url": "x"}]),
            item(type="web_search_call", id="ws_1", status="completed"),
            item(type="compaction", encrypted_content="xyz"),
        ],
    )
    def test_what_cannot_be_shown_is_refused(self, bad: bytes) -> None:
        """Images, files and items of other kinds are never dropped silently; the problem names the item."""
        problem = refusal(user_message("hi"), bad)
        assert (problem.code, problem.param) == ("invalid_value", "input[1]")
        assert "'input[1]'" in problem.message

    def test_what_an_earlier_turn_holds_is_refused_too(self) -> None:
        """An image that another model saw earlier in the chain is named by what the client continued."""
        image = item(role="user", content=[{"type": "input_image", "image_url": "x"}])
        earlier = turn(None, image)
        problem = refusal(user_message("hi"), parent=turn(earlier, user_message("and?"), name="later"))
        assert (problem.code, problem.param) == ("invalid_value", "previous_response_id")
        assert earlier.id in problem.message

    def test_an_item_that_cannot_be_read_is_refused(self) -> None:
        """A history made elsewhere may hold what was never checked here."""
        problem = refusal(b'{"type":7}')
        assert (problem.code, problem.param) == ("invalid_type", "input[0].type")

    @pytest.mark.parametrize("choice", [{"type": "file_search"}, {"type": "custom", "name": "f"}])
    def test_only_functions_can_be_demanded(self, choice: dict[str, Any]) -> None:
        """A request that needs another kind of call is refused."""
        problem = check_settings(Settings(model="smollm2", tools=[FUNCTION], tool_choice=choice))
        assert problem is not None
        assert (problem.code, problem.param) == ("unsupported_parameter", "tool_choice")

    @pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "g"}])
    def test_a_demanded_function_must_be_there(self, choice: str | dict[str, Any]) -> None:
        tools = [] if choice == "required" else [FUNCTION]
        problem = check_settings(Settings(model="smollm2", tools=tools, tool_choice=choice))
        assert problem is not None
        assert (problem.code, problem.param) == ("invalid_value", "tool_choice")

    def test_unknown_formats_are_refused(self) -> None:
        """A client that demands a form must not get prose."""
        problem = check_settings(Settings(model="smollm2", text={"format": {"type": "grammar"}}))
        assert problem is not None
        assert (problem.code, problem.param) == ("unsupported_parameter", "text.format")
        for kind in ("text", "json_object", "json_schema"):
            assert check_settings(Settings(model="smollm2", text={"format": {"type": kind}})) is None


FUNCTION: dict[str, Any] = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
OTHER = {"type": "function", "name": "g"}


class TestTools:
    @pytest.mark.parametrize(
        ("choice", "shown", "allowed", "must"),
        [
            ("auto", ["f", "g"], ("f", "g"), False),
            ("none", [], (), False),
            ("required", ["f", "g"], ("f", "g"), True),
            ({"type": "function", "name": "g"}, ["f", "g"], ("g",), True),
            ({"type": "allowed_tools", "mode": "auto", "tools": [OTHER]}, ["f", "g"], ("g",), False),
            ({"type": "allowed_tools", "mode": "required", "tools": [OTHER]}, ["f", "g"], ("g",), True),
        ],
    )
    def test_the_choice_says_what_may_be_called(
        self, choice: str | dict[str, Any], shown: list[str], allowed: tuple[str, ...], must: bool
    ) -> None:
        """All functions are shown, so that the prompt does not change with what may be called of them."""
        tools = read_tools(Settings(model="m", tools=[FUNCTION, OTHER], tool_choice=choice))
        assert ([tool.name for tool in tools.shown], tools.allowed, tools.required) == (shown, allowed, must)

    def test_other_kinds_are_left_out(self) -> None:
        tools = read_tools(Settings(model="m", tools=[{"type": "web_search"}, {"type": "custom", "name": "edit"}]))
        assert tools.shown == ()


class TestContinuation:
    HI, HO = user_message("hi"), item(role="assistant", content="ho")

    def test_it_is_the_answer_and_the_input(self) -> None:
        """What the parent was asked is in its prompt already."""
        parent = turn(None, self.HI, output=(self.HO,))
        assert read_continuation(History(parent, (user_message("and"),))) == [
            PromptMessage("assistant", "ho"),
            PromptMessage("user", "and"),
        ]

    @pytest.mark.parametrize(
        ("before", "answer", "new"),
        [
            ((), (HO,), (HI,)),  # the parent's input ends in somebody's words that are not there
            ((HI, HO), (HO,), (HI,)),  # an answer behind an answer
            ((HI,), (), (HI,)),  # nothing was answered
            ((HI,), (HO,), (HO,)),  # the client goes on in the assistant's name
        ],
    )
    def test_where_messages_may_grow_together_all_is_read(
        self, before: tuple[bytes, ...], answer: tuple[bytes, ...], new: tuple[bytes, ...]
    ) -> None:
        assert read_continuation(History(turn(None, *before, output=answer), new)) is None

    def test_a_new_chain_continues_nothing(self) -> None:
        assert read_continuation(History(None, (self.HI,))) is None
