"""Grammars over a vocabulary of the 256 bytes and an end: what they allow, told for whole texts."""

from __future__ import annotations

from functools import cache, lru_cache
from random import Random

from segue.engine.grammar.json_schema import Schema
from segue.engine.grammar.lark import LarkGrammar
from segue.engine.grammar.token_matcher import AnswerGrammar, TokenVocabulary
from segue.engine.output.tool_call_parser import ToolCallParser
from segue.engine.prompt.chat_template import CallFormat
from segue.engine.prompt.messages import Tools

END = 256


@cache
def vocabulary() -> TokenVocabulary:
    tokens = [*(bytes([byte]) for byte in range(END)), b"<end>"]
    return TokenVocabulary(tokens, lambda text: list(text.encode()), special=[END], ends=[END])


@lru_cache(maxsize=64)
def compile_grammar(lark: str) -> AnswerGrammar:
    return vocabulary().compile(lark)


def grammar_of(schema: Schema) -> AnswerGrammar:
    made = LarkGrammar()
    return compile_grammar(made.text(made.add_schema(schema)))


def parser_for(call_format: CallFormat, tools: Tools, schema: Schema | None = None) -> ToolCallParser:
    return ToolCallParser(call_format, tools, schema, compile_grammar=compile_grammar)


def is_allowed(grammar: AnswerGrammar, text: str) -> bool:
    """Tell whether this may be the whole answer."""
    matcher = grammar.begin_behind(text)
    return matcher is not None and bool(matcher.allowed()[END])


def write(grammar: AnswerGrammar, random: Random, most: int = 400) -> str | None:
    """Write a text that is allowed, taking any way; None if it comes to no end."""
    matcher = grammar.begin()
    written = bytearray()
    for _ in range(most):
        allowed = matcher.allowed()
        token = random.choice([token for token, is_one in enumerate(allowed) if is_one])
        assert matcher.accept(token)
        if token == END:
            return written.decode()
        written.append(token)
    return None
