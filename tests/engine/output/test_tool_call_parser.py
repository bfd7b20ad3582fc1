"""What an answer means: calls are found wherever the text is cut, and text stays text."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.grammar.gbnf import GrammarError
from segue.engine.output.tool_call_parser import Answering, Arguments, CallBegan, CallEnded, Part, schema_of
from segue.engine.prompt.chat_template import IN_WORDS, CallForm
from segue.engine.prompt.messages import Tool, Tools
from tests.engine.grammar.gbnf_reader import Gbnf

BARE = CallForm('{"name": "', '", "parameters": ', "}", None)
TOOLS = tuple(Tool(name, {"type": "function", "function": {"name": name}}) for name in ("get", "get_all"))
FREE = Tools(TOOLS, ("get", "get_all"))
MUST = Tools(TOOLS, ("get", "get_all"), must=True)


def call(name: str, arguments: str, form: CallForm = IN_WORDS) -> str:
    return f"{form.prefix}{name}{form.middle}{arguments}{form.suffix}"


def read(answering: Answering, text: str, sizes: list[int]) -> list[Part]:
    """Read a text in pieces, and join neighbours again."""
    parts: list[Part] = []
    for size in [*sizes, *[5] * len(text)]:  # a token is short
        parts += answering.feed(text[:size])
        text = text[size:]
    parts += answering.close()
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        elif isinstance(part, Arguments) and isinstance(last, Arguments):
            joined[-1] = Arguments(last.text + part.text)
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
    expected: list[Part] = [before.rstrip("\n")] if before.rstrip("\n") else []
    for name, arguments in calls:
        expected += [CallBegan(name), Arguments(arguments), CallEnded()]
    # line breaks before a call may have been passed on before it was seen
    got = read(Answering(IN_WORDS, FREE), text, cuts)
    if got and isinstance(got[0], str):
        got[0] = got[0].rstrip("\n")
    assert [part for part in got if part != ""] == expected


@given(st.text('<tool_cal>\n{"name: ge', max_size=40), sizes)
def test_text_is_text_in_any_pieces(text: str, cuts: list[int]) -> None:
    """Without tools nothing is held back; with them nothing is lost."""
    nothing = Tools()
    assert read(Answering(IN_WORDS, nothing), text, cuts) == ([text] if text else [])
    if "<tool_call>" not in text:
        assert read(Answering(IN_WORDS, FREE), text, cuts) == ([text] if text else [])


def test_a_call_that_has_begun_is_held_to_its_grammar() -> None:
    """From where it was recognised on, with what of it was written already."""
    answering = Answering(IN_WORDS, FREE)
    assert answering.feed("Well. <tool_") == ["Well. "]
    assert answering.feed('call>\n{"na') == []
    assert answering.grammar is not None
    assert answering.grammar.startswith('root ::= ("me\\": \\"get\\"')
    assert "get_all" in answering.grammar


def test_a_mark_that_begins_no_call_is_text() -> None:
    """A model that writes something else behind the mark has not called anything."""
    answering = Answering(IN_WORDS, FREE)
    assert answering.feed("<tool_call>?") == ["<tool_call>", "?"]
    assert answering.grammar is None


def test_bare_json_is_a_call_only_at_the_beginning() -> None:
    """In the middle of a text it may be anything."""
    text = call("get", "{}", BARE)
    assert read(Answering(BARE, FREE), text, []) == [CallBegan("get"), Arguments("{}"), CallEnded()]
    assert read(Answering(BARE, FREE), f"Say {text}", [3, 4]) == [f"Say {text}"]


def test_a_demanded_call_is_held_to_its_grammar_from_the_start() -> None:
    answering = Answering(IN_WORDS, MUST)
    assert answering.grammar is not None
    assert answering.grammar.startswith('root ::= "<tool_call>')
    only = Answering(IN_WORDS, Tools(TOOLS, ("get",), must=True, many=False))
    assert only.grammar is not None
    assert "get_all" not in only.grammar
    assert ")*\n" not in only.grammar.splitlines()[0]


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
    assert schema_of(form) == schema


def test_json_and_calls_exclude_each_other() -> None:
    """An answer that must be JSON is that, or calls."""
    answering = Answering(IN_WORDS, FREE, {"type": "null"})
    assert answering.grammar is not None
    assert answering.grammar.splitlines()[0].startswith('root ::= null | "<tool_call>')
    assert read(answering, "null", []) == ["null"]


def with_parameters(*parameters: Mapping[str, object]) -> Tools:
    """Functions a, b and so on with these parameters."""
    names = [chr(ord("a") + index) for index in range(len(parameters))]
    tools = [
        Tool(name, {"type": "function", "function": {"name": name, "parameters": one}})
        for name, one in zip(names, parameters, strict=True)
    ]
    return Tools(tuple(tools), tuple(names))


def check(answering: Answering, names: str) -> None:
    for name in names:
        answering.check(name)


def test_functions_keep_their_own_definitions() -> None:
    """References of the same name mean what the function's own schema says."""
    tools = [
        {"properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"const": value}}, "required": ["x"]}
        for value in range(9)
    ]
    answering = Answering(BARE, with_parameters(*tools))
    assert answering.feed(call("", "", BARE)[:10]) == []
    assert answering.grammar is not None
    grammar = Gbnf(answering.grammar)
    for value, name in enumerate("abcdefghi"):
        assert grammar.allows(call(name, f'{{"x": {value}}}', BARE)[10:])
        assert not grammar.allows(call(name, f'{{"x": {value + 1}}}', BARE)[10:])


def test_what_is_checked_is_what_is_needed() -> None:
    """All functions together, since any may be called: what was allowed then must not fail when a call begins."""
    large = {"properties": {f"p{number}": {"enum": [f"{number} {n}" for n in range(200)]} for number in range(60)}}
    answering = Answering(IN_WORDS, with_parameters(large, large))
    check(answering, "ab")
    assert answering.feed(IN_WORDS.prefix) == []
    assert answering.grammar is not None
    answering = Answering(IN_WORDS, with_parameters(*[large] * 9))
    with pytest.raises(GrammarError, match="all together"):
        check(answering, "abcdefghi")


def test_a_name_that_no_grammar_can_have_is_refused() -> None:
    tool = Tool("\0", {"type": "function", "function": {"name": "\0"}})
    with pytest.raises(GrammarError):
        Answering(IN_WORDS, Tools((tool,), ("\0",))).check("\0")
