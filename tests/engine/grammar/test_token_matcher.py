"""What the library is asked: which tokens may follow, and where that comes to its limits."""

from __future__ import annotations

import pytest

from segue.engine.grammar.json_schema import GrammarError
from segue.engine.grammar.token_matcher import TokenMatcher, TokenVocabulary
from tests.engine.grammar.byte_grammars import END, compile_grammar, grammar_of

pytestmark = pytest.mark.local_engine

WORDS = [*(bytes([byte]) for byte in range(256)), b"<end>", b"<stop>", b"<mark>", b"hello", b'{"', b"hel"]


def words(tokenize: list[int]) -> TokenVocabulary:
    return TokenVocabulary(WORDS, lambda _: tokenize, special=[256, 257, 258], ends=[256, 257])


def allowed(matcher: TokenMatcher) -> set[int]:
    return {token for token, is_one in enumerate(matcher.allowed()) if is_one}


def test_tokens_are_allowed_that_begin_what_may_follow() -> None:
    matcher = words([]).compile('start: "hello" | "hey"\n').begin()
    assert allowed(matcher) == {ord("h"), 261, 259}
    assert not matcher.accept(ord("x"))
    assert matcher.accept(261)
    assert allowed(matcher) == {ord("l")}
    assert [matcher.accept(ord(char)) for char in "lox"] == [True, True, False]


def test_every_end_ends_an_answer_and_nothing_special_is_text() -> None:
    matcher = words([]).compile("start: /[a-z<>]*/\n").begin()
    assert {256, 257} <= allowed(matcher)
    assert 258 not in allowed(matcher)
    assert not matcher.accept(258)
    assert matcher.accept(257)


def test_what_is_complete_can_only_end() -> None:
    matcher = words([]).compile('start: "x"\n').begin()
    assert matcher.accept(ord("x"))
    assert allowed(matcher) <= {256, 257}
    assert not matcher.accept(ord("x"))
    assert not matcher.accept(258)
    assert matcher.accept(256)


def test_certain_text_is_written_as_the_model_was_taught() -> None:
    """Unless that would be another text: there are tokenizers that begin each text with a blank."""
    hello = [ord("h"), *b"ello"]
    assert allowed(words([259]).compile('start: "hello"\n').begin()) == {259}
    assert allowed(words(hello).compile('start: "hello"\n').begin()) == {ord("h")}
    assert allowed(words([ord(" "), 259]).compile('start: "hello"\n').begin()) == {259}

    def closed(_: str) -> list[int]:
        raise InterruptedError

    vocabulary = TokenVocabulary(WORDS, closed, special=[256, 257, 258], ends=[256, 257])
    assert allowed(vocabulary.compile('start: "hello"\n').begin()) == {259}


def test_answers_of_a_grammar_do_not_know_each_other() -> None:
    grammar = compile_grammar('start: "ab" | "ac"\n')
    first, second = grammar.begin(), grammar.begin()
    assert first.accept(ord("a"))
    assert first.accept(ord("b"))
    assert second.accept(ord("a"))
    assert second.accept(ord("c"))


def test_what_is_written_already_counts() -> None:
    grammar = compile_grammar('start: "café" | "cat"\n')
    matcher = grammar.begin_behind("caf")
    assert matcher is not None
    assert matcher.accept("é".encode()[0])
    assert grammar.begin_behind("cas") is None
    assert grammar.begin_behind("") is not None


@pytest.mark.parametrize("lark", ["start: (\n", "start: nothing\n", "start: %json 1\n"])
def test_what_cannot_be_read_is_an_error(lark: str) -> None:
    with pytest.raises(GrammarError) as raised:
        compile_grammar(lark)
    assert "\n" not in str(raised.value)


def test_a_grammar_of_too_many_readings_is_an_error_where_it_comes_to_them() -> None:
    """Not before: what comes then may be short. It stays an error."""
    arrays = [{"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": most} for most in (3, 4)]
    matcher = grammar_of({"anyOf": arrays}).begin()
    with pytest.raises(GrammarError, match="too many ways"):  # noqa: PT012 - at whichever bracket it is
        for _ in range(200):
            matcher.allowed()
            assert matcher.accept(ord("["))
    with pytest.raises(GrammarError):
        matcher.allowed()
    with pytest.raises(GrammarError):
        matcher.accept(END)


def test_a_long_answer_of_bounded_strings_is_no_such_grammar() -> None:
    """Each length is a state of its own."""
    lengths = [900 + number for number in range(4)]
    strings = {f"p{length}": {"type": "string", "maxLength": length} for length in lengths}
    matcher = grammar_of({"properties": strings, "required": list(strings)}).begin()
    text = ", ".join(f'"p{length}": "{"some word " * (length // 10)}"' for length in lengths)
    for byte in f"{{{text}}}".encode():
        matcher.allowed()
        assert matcher.accept(byte)


def test_a_grammar_that_leads_nowhere_is_an_error() -> None:
    """A type that always holds one more of itself is never complete, and each of its answers would be endless."""
    with pytest.raises(GrammarError):
        grammar_of({"anyOf": [{"$ref": "#"}]})
