"""What an answer means: calls are found wherever the text is cut, and text stays text."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.grammar.json_schema import GrammarError
from segue.engine.output.tool_call_parser import (
    AnswerPart,
    CallArguments,
    CallBegan,
    CallEnded,
    ToolCallParser,
    text_schema,
)
from segue.engine.prompt.chat_template import DEFAULT_CALL_FORMAT, CallFormat
from segue.engine.prompt.messages import PromptTool, Tools
from tests.engine.grammar.byte_grammars import END, parser_for

BARE = CallFormat('{"name": "', '", "parameters": ', "}", None)
TOOLS = tuple(PromptTool(name, {"type": "function", "function": {"name": name}}) for name in ("get", "get_all"))
FREE = Tools(TOOLS, ("get", "get_all"))
MUST = Tools(TOOLS, ("get", "get_all"), required=True)


#: Grammars are compiled by the library that comes with the local engine.
pytestmark = pytest.mark.local_engine


def allows(answer: ToolCallParser, text: str) -> bool:
    """Tell whether the grammar that holds now allows this as the rest of the answer; it is spent then."""
    matcher, answer.grammar = answer.grammar, None
    assert matcher is not None
    return all(matcher.accept(byte) for byte in text.encode()) and bool(matcher.allowed()[END])


def call(name: str, arguments: str, form: CallFormat = DEFAULT_CALL_FORMAT) -> str:
    return f"{form.prefix}{name}{form.middle}{arguments}{form.suffix}"


def read(parser: ToolCallParser, text: str, sizes: list[int]) -> list[AnswerPart]:
    """Read a text in pieces, and join neighbours again."""
    parts: list[AnswerPart] = []
    for size in [*sizes, *[5] * len(text)]:  # a token is short
        parts += parser.feed(text[:size])
        text = text[size:]
    parts += parser.close()
    joined: list[AnswerPart] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments):
            joined[-1] = CallArguments(last.text + part.text)
        else:
            joined.append(part)
    return joined


sizes = st.lists(st.integers(1, 9))
objects = st.dictionaries(
    st.text(max_size=5), st.text(max_size=5) | st.integers() | st.lists(st.text(max_size=3)), max_size=3
)
words = st.text('ab <{\n"', max_size=12).filter(lambda text: "<" not in text)


@given(words, st.lists(st.tuples(st.sampled_from(["get", "get_all"]), objects), min_size=1, max_size=3), sizes)
def test_calls_are_found_in_any_pieces(before: str, made: list[tuple[str, object]], cuts: list[int]) -> None:
    """For any text before them, any arguments, and any cutting."""
    calls = [(name, json.dumps(arguments)) for name, arguments in made]
    text = before + "\n".join(call(*one) for one in calls)
    expected: list[AnswerPart] = [before.rstrip("\n")] if before.rstrip("\n") else []
    for name, arguments in calls:
        expected += [CallBegan(name), CallArguments(arguments), CallEnded()]
    # line breaks before a call may have been passed on before it was seen
    got = read(parser_for(DEFAULT_CALL_FORMAT, FREE), text, cuts)
    if got and isinstance(got[0], str):
        got[0] = got[0].rstrip("\n")
    assert [part for part in got if part != ""] == expected


@given(st.text('<tool_cal>\n{"name: ge', max_size=40), sizes)
def test_text_is_text_in_any_pieces(text: str, cuts: list[int]) -> None:
    """Without tools nothing is held back; with them nothing is lost."""
    nothing = Tools()
    assert read(parser_for(DEFAULT_CALL_FORMAT, nothing), text, cuts) == ([text] if text else [])
    if "<tool_call>" not in text:
        assert read(parser_for(DEFAULT_CALL_FORMAT, FREE), text, cuts) == ([text] if text else [])


def test_a_call_that_has_begun_is_held_to_its_grammar() -> None:
    """From where it was recognised on, with what of it was written already."""
    for name, allowed in (("get", True), ("get_all", True), ("get_none", False)):
        parser = parser_for(DEFAULT_CALL_FORMAT, FREE)
        assert parser.feed("Well. <tool_") == ["Well. "]
        assert parser.feed('call>\n{"na') == []
        rest = call(name, '{"a": 1}').removeprefix('<tool_call>\n{"na')
        assert allows(parser, rest) is allowed


def test_a_mark_that_begins_no_call_is_text() -> None:
    """A model that writes something else behind the mark has not called anything."""
    parser = parser_for(DEFAULT_CALL_FORMAT, FREE)
    assert parser.feed("<tool_call>?") == ["<tool_call>", "?"]
    assert parser.grammar is None


def test_bare_json_is_a_call_only_at_the_beginning() -> None:
    """In the middle of a text it may be anything."""
    text = call("get", "{}", BARE)
    assert read(parser_for(BARE, FREE), text, []) == [CallBegan("get"), CallArguments("{}"), CallEnded()]
    assert read(parser_for(BARE, FREE), f"Say {text}", [3, 4]) == [f"Say {text}"]


def test_a_demanded_call_is_held_to_its_grammar_from_the_start() -> None:
    one, other = call("get", "{}"), call("get_all", "{}")
    for text, allowed in ((one, True), (other, True), (f"{one}\n{other}", True), ("", False), ("x", False)):
        assert allows(parser_for(DEFAULT_CALL_FORMAT, MUST), text) is allowed
    for text, allowed in ((one, True), (other, False), (f"{one}\n{one}", False)):
        assert (
            allows(parser_for(DEFAULT_CALL_FORMAT, Tools(TOOLS, ("get",), required=True, parallel=False)), text)
            is allowed
        )


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({}, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "schema": {"type": "null"}}, {"type": "null"}),
    ],
)
def test_a_format_is_a_schema(form: dict[str, object], schema: object) -> None:
    assert text_schema(form) == schema


def test_json_and_calls_exclude_each_other() -> None:
    """An answer that must be JSON is that, or calls."""
    for text, allowed in (("null", True), (call("get", "{}"), True), ("null" + call("get", "{}"), False), ("1", False)):
        assert allows(parser_for(DEFAULT_CALL_FORMAT, FREE, {"type": "null"}), text) is allowed
    assert read(parser_for(DEFAULT_CALL_FORMAT, FREE, {"type": "null"}), "null", []) == ["null"]


def with_parameters(*parameters: Mapping[str, object]) -> Tools:
    """Functions a, b and so on with these parameters."""
    names = [chr(ord("a") + index) for index in range(len(parameters))]
    tools = [
        PromptTool(name, {"type": "function", "function": {"name": name, "parameters": one}})
        for name, one in zip(names, parameters, strict=True)
    ]
    return Tools(tuple(tools), tuple(names))


def test_functions_keep_their_own_definitions() -> None:
    """References of the same name mean what the function's own schema says."""
    tools = [
        {"properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"const": value}}, "required": ["x"]}
        for value in range(9)
    ]
    for value, name in enumerate("abcdefghi"):
        for written, allowed in ((value, True), (value + 1, False)):
            parser = parser_for(BARE, with_parameters(*tools))
            assert parser.feed(call("", "", BARE)[:10]) == []
            assert allows(parser, call(name, f'{{"x": {written}}}', BARE)[10:]) is allowed


def test_functions_share_the_limits() -> None:
    """All together, since any may be called: what was allowed at the start must not fail when a call begins."""
    large = {"properties": {f"p{number}": {"enum": [f"{number} {n}" for n in range(200)]} for number in range(60)}}
    parser = parser_for(DEFAULT_CALL_FORMAT, with_parameters(large, large))
    assert parser.feed(DEFAULT_CALL_FORMAT.prefix) == []
    assert parser.grammar is not None
    with pytest.raises(GrammarError, match="all together"):
        parser_for(DEFAULT_CALL_FORMAT, with_parameters(*[large] * 12))


def test_a_function_of_any_name_is_called() -> None:
    name = 'a\0"\\\n\x01\x7f\u2028é\U0001f600'
    tool = PromptTool(name, {"type": "function", "function": {"name": name}})
    assert allows(parser_for(DEFAULT_CALL_FORMAT, Tools((tool,), (name,), required=True)), call(name, "{}"))
