"""What a model's answer means: text, and calls of functions in the model's own form. Pure.

`Answering` says which grammar an answer is held to and reads the answer as it comes. Where a call is demanded, or JSON,
the grammar holds from the first token. Where calls are only allowed, the model writes freely until it begins one; from
there on the grammar of that call holds, so that what has begun as a call always is one, with arguments that are JSON of
the function's schema. Text that may be the beginning of a call is held back until that is known.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from segue.engine.grammar.gbnf import Grammar, Schema, literal
from segue.engine.prompt.chat_template import CallForm
from segue.engine.prompt.messages import Tools


class CallBegan(msgspec.Struct, frozen=True):
    """The model calls this function."""

    name: str


class Arguments(msgspec.Struct, frozen=True):
    """A piece of the arguments of the call that has begun."""

    text: str


class CallEnded(msgspec.Struct, frozen=True):
    """The arguments are complete."""


#: A piece of an answer; a string is text for the user.
Part: TypeAlias = str | CallBegan | Arguments | CallEnded


class Answering:
    """Reads one answer. `schema` is that of the text, if it must be JSON."""

    def __init__(self, form: CallForm, tools: Tools, schema: Schema | None = None) -> None:
        self._form = form = msgspec.structs.replace(form, prefix=form.prefix.lstrip("\n"))
        self._names = tools.allowed
        self._parameters: dict[str, Schema] = {tool.name: {"type": "object", **tool.parameters} for tool in tools.shown}
        self._checked = Grammar()  # of all functions, as the one of a call may have to be
        self._must = tools.must
        self._schema = schema
        self._many = tools.many and form.between is not None
        self._trigger = _trigger(form)
        self._waiting = ""  # text whose meaning is not known yet
        self._call: _Call | None = None
        self._any_text = False
        #: A grammar that the rest of the answer is held to, once there is one; whoever takes it sets it to None.
        self.grammar = self._first_grammar()

    @property
    def calling(self) -> bool:
        """Whether a call has begun; there is no text behind it."""
        return self._call is not None

    def feed(self, text: str) -> list[Part]:
        """Add what the model wrote; return what it comes to."""
        self._waiting += text
        parts: list[Part] = []
        while True:
            more = self._read_text() if self._call is None else self._read_call(self._call)
            parts += more
            if not more:
                return parts

    def close(self) -> list[Part]:
        """Return what was still held back at the end of the answer."""
        left, self._waiting = self._waiting, ""
        return [left] if left and self._call is None else []

    def check(self, name: str) -> None:
        """Raise `GrammarError` if a call of this function could not be held to its schema."""
        self._checked.add_rule(self._body(self._checked, name))

    # --- private: the grammar ----------------------------------------------------------------------------------------

    def _first_grammar(self) -> str | None:
        if self._must:
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
        form = self._form
        call = grammar.add_rule(" | ".join(self._body(grammar, name) for name in self._names))
        one = f"{literal(form.prefix)} {call} {literal(form.suffix)}"
        return f"{one} ({literal(form.between or '')} {one})*" if self._many else one

    def _rest_of_call(self, written: str) -> str | None:
        """Return the grammar behind the beginning of a call; None if what was written is no call of an allowed name."""
        grammar = Grammar()
        options = []
        for name in self._names:
            whole = self._form.prefix + name + self._form.middle
            if whole.startswith(written):
                options.append(f"{literal(whole[len(written) :])} {self._arguments(grammar, name)}")
        if not options:
            return None
        rest = f"({' | '.join(options)}) {literal(self._form.suffix)}"
        if self._many:
            rest += f" ({literal(self._form.between or '')} {self._calls(grammar)})?"
        return grammar.text(rest)

    def _body(self, grammar: Grammar, name: str) -> str:
        return f"{literal(name)} {literal(self._form.middle)} {self._arguments(grammar, name)}"

    def _arguments(self, grammar: Grammar, name: str) -> str:
        return grammar.add_schema(self._parameters[name])

    # --- private: reading --------------------------------------------------------------------------------------------

    def _read_text(self) -> list[Part]:
        if not self._names or (self._schema is not None and not self._must and self._any_text):
            return self._pass(len(self._waiting))
        at = self._waiting.find(self._trigger)
        anywhere = (
            self._trigger[:1] in "<["
        )  # a mark; else it is how any JSON may begin, which only counts at the start
        if at > 0 and not anywhere:
            at = -1
        if at < 0:
            return self._pass(self._clear(anywhere=anywhere))
        held = self.grammar is not None or self._must or self._schema is not None
        grammar = None if held else self._rest_of_call(self._waiting[at:])
        if not held and grammar is None:
            return self._pass(at + len(self._trigger))
        parts = self._pass(at, strip=True)
        self.grammar = grammar or self.grammar
        self._call = _Call(self._form.prefix, self._form.middle, self._form.suffix, self._form.between or "")
        return parts or self._read_call(self._call)

    def _clear(self, *, anywhere: bool) -> int:
        """Return how much of the waiting text cannot be the beginning of a call."""
        if not anywhere and self._any_text:
            return len(self._waiting)
        for length in range(min(len(self._trigger) - 1, len(self._waiting)), 0, -1):
            if self._waiting.endswith(self._trigger[:length]) and (anywhere or length == len(self._waiting)):
                return len(self._waiting) - length
        return len(self._waiting)

    def _pass(self, length: int, *, strip: bool = False) -> list[Part]:
        text, self._waiting = self._waiting[:length], self._waiting[length:]
        if strip:  # the line break before a call belongs to the call
            text = text.rstrip("\n")
        self._any_text = self._any_text or bool(text)
        return [text] if text else []

    def _read_call(self, call: _Call) -> list[Part]:
        taken, parts, over = call.read(self._waiting)
        self._waiting = self._waiting[taken:]
        if over:
            self._call = _Call(self._form.prefix, self._form.middle, self._form.suffix, self._form.between or "")
            self._call.between = True
        return parts


class _Call:
    """Reads one call, whose form the grammar guarantees."""

    def __init__(self, prefix: str, middle: str, suffix: str, separator: str) -> None:
        self._prefix, self._middle, self._suffix, self._separator = prefix, middle, suffix, separator
        self.between = False  # another call may follow
        self._named = False
        self._value = _Value()

    def read(self, text: str) -> tuple[int, list[Part], bool]:
        """Return how much of the text was read, what it means, and whether the call is over."""
        taken = 0
        parts: list[Part] = []
        if not self._named:
            start = (self._separator if self.between else "") + self._prefix
            at = text.find(self._middle, len(start))
            if at < 0:
                return 0, [], False
            parts.append(CallBegan(text[len(start) : at]))
            self._named = True
            taken = at + len(self._middle)
        length = self._value.read(text[taken:])
        if length:
            parts.append(Arguments(text[taken : taken + length]))
            taken += length
        if self._value.over:
            if len(text) - taken < len(self._suffix):
                return taken, parts, False
            return taken + len(self._suffix), [*parts, CallEnded()], True
        return taken, parts, False


class _Value:
    """Finds the end of a JSON object."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.over = False

    def read(self, text: str) -> int:
        """Return how many of the characters belong to the value."""
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


def _trigger(form: CallForm) -> str:
    """Return the words that a call begins with: its first line."""
    return form.prefix.partition("\n")[0]


def schema_of(form: dict[str, Any]) -> Schema | None:
    """Return the schema that the text of an answer must follow (`text.format`), None if it may be any text."""
    match form.get("type", "text"):
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            schema: Schema = form.get("schema") or {"type": "object"}
            return schema
        case _:
            return None
