"""Splits the text of an answer into text for the user and tool calls, in the format of the model. Pure.

`ToolCallParser` reads an answer piece by piece, and gives the grammar that constrains it. If the request demands a call
or JSON, the grammar applies from the first token. If calls are only allowed, the model writes freely until it begins
one (its *trigger*); from there on the grammar of that call applies, so that a call that has begun is always valid, with
arguments that match the function's schema. Text that may be the beginning of a call is held back until that is clear.
Not here: how a grammar is made from a schema (`grammar`), and how a model writes calls (`prompt.chat_template`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from segue.engine.grammar.json_schema import Schema
from segue.engine.grammar.lark import LarkGrammar, literal
from segue.engine.grammar.token_matcher import AnswerGrammar, TokenMatcher
from segue.engine.prompt.chat_template import CallFormat
from segue.engine.prompt.messages import Tools
from segue.protocol.request_size import go_on


class CallBegan(msgspec.Struct, frozen=True):
    """The model calls this function."""

    name: str


class CallArguments(msgspec.Struct, frozen=True):
    """A piece of the arguments of the call that began last."""

    text: str


class CallEnded(msgspec.Struct, frozen=True):
    """The arguments are complete."""


#: A piece of an answer; a string is text for the user.
AnswerPart: TypeAlias = str | CallBegan | CallArguments | CallEnded


class ToolCallParser:
    """Reads one answer. `schema` is the schema of its text, if that must be JSON; `opening` comes before such a text.

    The constructor raises `GrammarError` if no grammar can be made of the schemas. It compiles all grammars, with
    `compile_grammar`; if calls are only allowed, their grammar is kept until the model begins one.
    """

    def __init__(
        self,
        call_format: CallFormat,
        tools: Tools,
        schema: Schema | None = None,
        *,
        compile_grammar: Callable[[str], AnswerGrammar],
        opening: str = "",
        pause: Callable[[], None] = go_on,
    ) -> None:
        self._format = call_format = msgspec.structs.replace(call_format, prefix=call_format.prefix.lstrip("\n"))
        self._names = tools.allowed
        self._parameters: dict[str, Schema] = {tool.name: {"type": "object", **tool.parameters} for tool in tools.shown}
        self._required = tools.required
        self._schema = schema
        self._opening = opening
        self._parallel = tools.parallel and call_format.between is not None
        self._trigger = _trigger(call_format)
        self._held = ""  # text that may still become a call
        self._call: _CallReader | None = None
        self._any_text = False
        lark = self._lark(LarkGrammar(pause))
        compiled = None if lark is None else compile_grammar(lark)
        constrained = self._required or schema is not None
        #: The grammar of calls, until the model begins one.
        self._calls = None if constrained else compiled
        #: The matcher for the rest of the answer, if it has changed; the reader takes it and sets it to None.
        self.grammar: TokenMatcher | None = compiled.begin() if compiled is not None and constrained else None

    @property
    def calling(self) -> bool:
        """Whether a call has begun; no text follows it."""
        return self._call is not None

    def feed(self, text: str) -> list[AnswerPart]:
        """Add what the model wrote; return the parts that are clear now."""
        self._held += text
        parts: list[AnswerPart] = []
        while True:
            more = self._read_text() if self._call is None else self._read_call(self._call)
            parts += more
            if not more:
                return parts

    def close(self) -> list[AnswerPart]:
        """Return what is still held back at the end of the answer."""
        left, self._held = self._held, ""
        return [left] if left and self._call is None else []

    # --- private: the grammar ----------------------------------------------------------------------------------------

    def _lark(self, grammar: LarkGrammar) -> str | None:
        """Return the grammar of calls, of JSON, or of either; None if there can only be text."""
        options = []
        if self._schema is not None and not self._required:
            options.append(_sequence(literal(self._opening), grammar.add_schema(self._schema)))
        options += [self._call_rules(grammar)] if self._names else []
        return grammar.text(" | ".join(options)) if options else None

    def _call_rules(self, grammar: LarkGrammar) -> str:
        """Return the body of a rule for one call or several."""
        form, parameters = self._format, self._parameters
        calls = [f"{literal(name + form.middle)} {grammar.add_schema(parameters[name])}" for name in self._names]
        one = _sequence(literal(form.prefix), grammar.add_rule(" | ".join(calls)), literal(form.suffix))
        if not self._parallel:
            return one
        call = grammar.add_rule(one)
        return f"{call} ({literal(form.between or '')} {call})*"

    # --- private: reading --------------------------------------------------------------------------------------------

    def _read_text(self) -> list[AnswerPart]:
        if not self._names or (self._schema is not None and not self._required and self._any_text):
            return self._pass(len(self._held))
        at = self._held.find(self._trigger)
        # a tag may come anywhere; any JSON may begin like another trigger, so that counts only at the start
        anywhere = self._trigger[:1] in "<["
        if at > 0 and not anywhere:
            at = -1
        if at < 0:
            return self._pass(self._clear(anywhere=anywhere))
        if self._calls is not None:
            grammar = self._calls.begin_behind(self._held[at:])
            if grammar is None:
                return self._pass(at + len(self._trigger))
            self.grammar = grammar
            self._calls = None  # the matcher is for further calls too
        parts = self._pass(at, strip=True)
        self._call = _CallReader(self._format)
        return parts or self._read_call(self._call)

    def _clear(self, *, anywhere: bool) -> int:
        """Return how much of the held text cannot be the beginning of a call."""
        if not anywhere and self._any_text:
            return len(self._held)
        for length in range(min(len(self._trigger) - 1, len(self._held)), 0, -1):
            if self._held.endswith(self._trigger[:length]) and (anywhere or length == len(self._held)):
                return len(self._held) - length
        return len(self._held)

    def _pass(self, length: int, *, strip: bool = False) -> list[AnswerPart]:
        text, self._held = self._held[:length], self._held[length:]
        if strip:  # the line break before a call belongs to the call
            text = text.rstrip("\n")
        self._any_text = self._any_text or bool(text)
        return [text] if text else []

    def _read_call(self, call: _CallReader) -> list[AnswerPart]:
        taken, parts, over = call.read(self._held)
        self._held = self._held[taken:]
        if over:
            self._call = _CallReader(self._format, first=False)
        return parts


class _CallReader:
    """Reads one call, whose format the grammar guarantees."""

    def __init__(self, call_format: CallFormat, *, first: bool = True) -> None:
        separator = "" if first else call_format.between or ""
        self._start, self._middle = separator + call_format.prefix, call_format.middle
        self._suffix = call_format.suffix
        self._named = False
        self._value = _JsonScanner()

    def read(self, text: str) -> tuple[int, list[AnswerPart], bool]:
        """Return how many characters of the text were read, the parts in them, and whether the call is over."""
        taken = 0
        parts: list[AnswerPart] = []
        if not self._named:
            at = text.find(self._middle, len(self._start))
            if at < 0:
                return 0, [], False
            parts.append(CallBegan(text[len(self._start) : at]))
            self._named = True
            taken = at + len(self._middle)
        length = self._value.read(text[taken:])
        if length:
            parts.append(CallArguments(text[taken : taken + length]))
            taken += length
        if self._value.over:
            if len(text) - taken < len(self._suffix):
                return taken, parts, False
            return taken + len(self._suffix), [*parts, CallEnded()], True
        return taken, parts, False


class _JsonScanner:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.over = False

    def read(self, text: str) -> int:
        """Return how many of the characters belong to the object."""
        if self.over:
            return 0
        for index, char in enumerate(text):
            if self._in_string:
                self._read_in_string(char)
            elif char == '"':
                self._in_string = True
            elif char in "{}[]":
                self._depth += 1 if char in "{[" else -1
                if not self._depth:
                    self.over = True
                    return index + 1
        return len(text)

    def _read_in_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False


def _sequence(*rules: str) -> str:
    """Return the rules one after the other, without those of an empty text."""
    return " ".join(rule for rule in rules if rule != literal(""))


def _trigger(call_format: CallFormat) -> str:
    """Return the text that every call begins with: the first line of the prefix."""
    return call_format.prefix.partition("\n")[0]


def text_schema(text_format: dict[str, Any]) -> Schema | None:
    """Return the schema that the text of an answer must match (`text.format`), None if it may be any text."""
    match text_format.get("type", "text"):
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            schema: Schema = text_format.get("schema") or {"type": "object"}
            return schema
        case _:
            return None
