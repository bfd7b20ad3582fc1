"""The text of grammars: rules are shared, and literals are what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.grammar.json_schema import GrammarError
from segue.engine.grammar.lark import LarkGrammar, literal
from tests.engine.grammar.byte_grammars import compile_grammar, is_allowed

pytestmark = pytest.mark.local_engine


def test_equal_rules_are_one() -> None:
    grammar = LarkGrammar()
    first, second = grammar.add_rule('"a"'), grammar.add_rule('"b"')
    assert grammar.add_rule('"a"') == first
    assert grammar.text(f"{first} {second}") == 'start: r0 r1\nr0: "a"\nr1: "b"\n'


def test_a_client_cannot_set_the_options_of_the_library() -> None:
    grammar = LarkGrammar()
    schema = {"x-guidance": {"whitespace_pattern": "x*"}, "type": "array", "items": {"type": "null"}}
    made = compile_grammar(grammar.text(grammar.add_schema(schema)))
    assert [is_allowed(made, text) for text in ("[null, null]", "[null,null]", "[xnull]", "[ null]")] == [
        True,
        True,
        False,
        False,
    ]


@given(st.text(min_size=1))
def test_a_literal_is_its_text(text: str) -> None:
    grammar = compile_grammar(f"start: {literal(text)}\n")
    assert is_allowed(grammar, text)
    assert not is_allowed(grammar, text + text[-1])


def test_a_schema_that_cannot_be_followed_is_an_error() -> None:
    with pytest.raises(GrammarError, match="leads nowhere"):
        LarkGrammar().add_schema({"$ref": "#/$defs/none"})
