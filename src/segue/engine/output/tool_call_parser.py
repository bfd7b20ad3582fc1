"""Splits the text of an answer into text for the user and tool calls, in the format of the model. Pure.

`ToolCallParser` reads an answer piece by piece, and gives the grammar that constrains it. If the request demands a call
or JSON, the grammar applies from the first token. If calls are only allowed, the model writes freely until it begins
one (its *trigger*); from there on the grammar of that call applies, so that a call that has begun is always valid, with
arguments that match the function's schema. Text that may be the beginning of a call is held back until that is clear.
Not here: how a grammar is made from a schema (`grammar`), and how a model writes calls (`prompt.chat_template`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from segue.engine.grammar.gbnf import Grammar, Schema, literal
from segue.engine.prompt.chat_template import CallFormat
from segue.engine.prompt.messages import Tools


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
    """Reads one answer. `schema` is the schema of its text, if that must be JSON."""

    def __init__(self, call_format: CallFormat, tools: Tools, schema: Schema | None = None) -> None:
        self._format = call_format = msgspec.structs.replace(call_format, prefix=call_format.prefix.lstrip("\n"))
        self._names = tools.allowed
        self._parameters: dict[str, Schema] = {tool.name: {"type": "object", **tool.parameters} for tool in tools.shown}
        self._checked = Grammar()  # of all functions together, as that of a call may be
        self._required = tools.required
        self._schema = schema
        self._parallel = tools.parallel and call_format.between is not None
        self._trigger = _trigger(call_format)
        self._held = ""  # text that may still become a call
        self._call: _CallReader | None = None
        self._any_text = False
        #: The grammar for the rest of the answer, if it has changed; the reader takes it and sets it to None.
        self.grammar = self._first_grammar()

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

    def check(self, name: str) -> None:
        """Raise `GrammarError` if no grammar can be made for a call of this function."""
        self._checked.add_rule(self._body(self._checked, name))

    # --- private: the grammar ----------------------------------------------------------------------------------------

    def _first_grammar(self) -> str | None:
        if self._required:
            grammar = Grammar()
            return grammar.text(self._calls(grammar))
        if self._schema is None:
            return None
        grammar = Grammar()
        value = grammar.add_schema(self._schema)
        if self._names:
            return grammar.text(f"{value} | {self._calls(grammar)}")
        return grammar.text(value)

    def _calls(self, grammar: Grammar) -> str:
        """Return the body of a rule for one call or several."""
        call_format = self._format
        call = grammar.add_rule(" | ".join(self._body(grammar, name) for name in self._names))
        one = f"{literal(call_format.prefix)} {call} {literal(call_format.suffix)}"
        return f"{one} ({literal(call_format.between or '')} {one})*" if self._parallel else one

    def _rest_of_call(self, written: str) -> str | None:
        """Return the grammar for the rest of a call that begins with `written`; None if no allowed call does."""
        grammar = Grammar()
        options = []
        for name in self._names:
            whole = self._format.prefix + name + self._format.middle
            if whole.startswith(written):
                options.append(f"{literal(whole[len(written) :])} {self._arguments(grammar, name)}")
        if not options:
            return None
        rest = f"({' | '.join(options)}) {literal(self._format.suffix)}"
        if self._parallel:
            rest += f" ({literal(self._format.between or '')} {self._calls(grammar)})?"
        return grammar.text(rest)

    def _body(self, grammar: Grammar, name: str) -> str:
        return f"{literal(name)} {literal(self._format.middle)} {self._arguments(grammar, name)}"

    def _arguments(self, grammar: Grammar, name: str) -> str:
        return grammar.add_schema(self._parameters[name])

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
        constrained = self.grammar is not None or self._required or self._schema is not None
        grammar = None if constrained else self._rest_of_call(self._held[at:])
        if not constrained and grammar is None:
            return self._pass(at + len(self._trigger))
        parts = self._pass(at, strip=True)
        self.grammar = grammar or self.grammar
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
