"""A model's own chat template: from messages to the text of a prompt, whole or only what a turn adds.

The template (Jinja, from the model's file) only ever sees marks: the text of a message, the name and arguments of a
call, and everything it would write as JSON are put in afterwards, as *segments* that may not hold control tokens. So
whatever a user writes, `<|im_end|>` included, is text to the model.

Each segment becomes tokens by itself, and what the template writes is cut where an answer begins. So the prompt of a
turn is the prompt of the turn before, then a few segments, exactly, if the template writes what comes later without
changing what it wrote before. Most do; `continuation` tries that on stand-ins, once for each sequence of roles, and
says None where it does not hold (a template that repeats the tools, or shortens earlier answers). Not here: tokens.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

import msgspec

from segue.upstreams.local.prompt import Message, Tool, ToolCall


class Segment(msgspec.Struct, frozen=True):
    """A stretch of the prompt; only in a `control` segment may tokens like `<|im_end|>` be recognised."""

    text: str
    control: bool


class TemplateError(ValueError):
    """The chat template loses, repeats or refuses what it is given."""


class CallForm(msgspec.Struct, frozen=True):
    """How a model writes a call: `prefix` name `middle` arguments `suffix`, and `between` two calls.

    `between` is None if it can only make one call at a time.
    """

    prefix: str
    middle: str
    suffix: str
    between: str | None


#: How calls are asked for and shown where a template knows nothing of tools: the form that most models were taught.
IN_WORDS = CallForm('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", "\n")

_TOOLS_IN_WORDS = (
    "You may call functions. Each line describes one:\n{tools}\n\n"
    'To call one, write nothing but:\n<tool_call>\n{{"name": NAME, "arguments": ARGUMENTS}}\n</tool_call>'
)

_MARK = re.compile("\ue000([a-z])([0-9]+)\ue001")
_IN_JSON = re.compile('"\ue000a([0-9]+)\ue001"|\ue000[a-z]([0-9]+)\ue001')
_MARKS = "segue_marks"
_KNOWN_SHAPES = 256
#: Longer turns are read whole: what is tried on stand-ins must not grow with what a client sends.
_LONGEST_SHAPE = 16


class _Marks:
    """The texts of one rendering, and the marks that stand for them: `t` text, `n` name, `a` arguments, `j` JSON."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.once: set[int] = set()  # those that must be written exactly once

    def make(self, kind: Literal["t", "n", "a", "j"], text: str) -> str:
        """Return the mark for a text."""
        self._texts.append(text)
        if kind != "j":
            self.once.add(len(self._texts) - 1)
        return f"\ue000{kind}{len(self._texts) - 1}\ue001"

    def to_json(self, value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - what a template may pass
        """Be the template's `tojson`: arguments are JSON already, a text becomes a string of its characters."""
        found = _MARK.fullmatch(value) if isinstance(value, str) else None
        if found is not None and found[1] == "a":
            return str(value)
        if found is not None:
            self.once.discard(int(found[2]))
            value = self._texts[int(found[2])]
        written = json.dumps(value, ensure_ascii=False, indent=indent)
        return self.make("j", _IN_JSON.sub(self._inside, written))

    def _inside(self, mark: re.Match[str]) -> str:
        """Return what stands for a mark inside JSON: a string's characters, or arguments as the value that they are."""
        quoted, plain = mark[1], mark[2]
        number = int(quoted or plain)
        self.once.discard(number)
        return self._texts[number] if quoted else json.dumps(self._texts[number], ensure_ascii=False)[1:-1]

    def split(self, rendered: str) -> list[Segment]:
        """Put the texts into what the template wrote."""
        pieces = _MARK.split(rendered)
        numbers = [int(number) for number in pieces[2::3]]
        if len(numbers) != len(set(numbers)) or not self.once <= set(numbers):
            raise TemplateError("the chat template does not write every message exactly once")
        found = []
        for index in range(0, len(pieces), 3):
            found.append(Segment(pieces[index], control=True))
            if index + 2 < len(pieces):
                found.append(Segment(self._texts[int(pieces[index + 2])], control=False))
        return [segment for segment in found if segment.text]


class ChatTemplate:
    """A chat template, compiled. `bos` and `eos` are texts; `add_bos` says that a prompt must begin with `bos`."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "", add_bos: bool = False) -> None:
        # imported here: the gateway starts without it where no local model is used
        sandbox, jinja = import_module("jinja2.sandbox"), import_module("jinja2")
        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = jinja.pass_context(_to_json)
        self._errors: tuple[type[Exception], ...] = (jinja.TemplateError, TypeError, ValueError, KeyError, IndexError)
        self._bos, self._eos, self._add_bos = bos, eos, add_bos
        self._shapes: OrderedDict[tuple[object, ...], bool] = OrderedDict()
        try:
            self._template = environment.from_string(source)
        except jinja.TemplateError as error:
            raise TemplateError(f"it is no template: {error}") from error
        user = [Message("user", "a")]
        with_prompt = self._text(user, ())
        without = self._text(user, (), answered=True).removesuffix(eos)
        self.opener = with_prompt.removeprefix(without) if with_prompt.startswith(without) else ""
        found = self._find_form(user)
        self.knows_tools = found is not None and self._shows_tools(user)
        self.form = found if found is not None and self.knows_tools else IN_WORDS

    def segments(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[Segment]:
        """Write a whole prompt, which ends where the answer begins."""
        marks = _Marks()
        return self._cut(marks.split(self._render(messages, tools, marks)))

    def continuation(self, added: Sequence[Message], tools: Sequence[Tool] = ()) -> list[Segment] | None:
        """Write what follows a prompt: the answer it had and the messages behind it; None if that cannot be told."""
        shape = (bool(tools), *((one.role, bool(one.text), len(one.calls)) for one in added))
        if len(shape) > _LONGEST_SHAPE or not self.opener:
            return None
        if shape not in self._shapes:
            self._shapes[shape] = self._appends(added, tools)
            if len(self._shapes) > _KNOWN_SHAPES:
                self._shapes.popitem(last=False)
        if not self._shapes[shape]:
            return None
        before = [Message("user", "a")]
        start = len(self.segments(before, tools))
        return self.segments([*before, *added], tools)[start:]

    # --- private: what the template is like --------------------------------------------------------------------------

    def _appends(self, added: Sequence[Message], tools: Sequence[Tool]) -> bool:
        """Try behind several histories whether `added` is written alike, and behind what was written before."""
        user, answer, system = Message("user", "a"), Message("assistant", "b"), Message("system", "c")
        used = (Message("assistant", "", (ToolCall("call_1", "f", "{}"),)), Message("tool", "d", answers="call_1"))
        histories: list[list[Message]] = [[user], [user, answer, user], [user, answer] * 3 + [user]]
        histories += [[user, *used], [user, *used, answer, user]]
        histories += [[system, *history] for history in histories]
        written: set[tuple[Segment, ...]] = set()
        for history in histories:
            try:
                before = self.segments(history, tools)
            except TemplateError:
                continue  # a template that knows no system messages, or no tools, never gets there
            try:
                after = self.segments([*history, *added], tools)
            except TemplateError:
                return False
            if after[: len(before)] != before:
                return False
            written.add(tuple(after[len(before) :]))
        return len(written) == 1

    def _find_form(self, user: Sequence[Message]) -> CallForm | None:
        """Find out from two calls how calls are written; None if the template does not show them, or not so."""
        one, two = (
            ToolCall("call_a", "\ue010n1\ue011", "\ue010a1\ue011"),
            ToolCall("call_b", "\ue010n2\ue011", "\ue010a2\ue011"),
        )
        try:
            start = self._text(user, ())
            end = self._text([*user, Message("assistant", "\ue010")], (), answered=True).partition("\ue010")[2]
            single = self._text([*user, Message("assistant", "", (one,))], (), answered=True)
        except TemplateError:
            return None
        found = re.fullmatch("(.*)\ue010n1\ue011(.*)\ue010a1\ue011(.*)", single.removeprefix(start), re.DOTALL)
        if found is None or not single.startswith(start) or not end or not found[3].endswith(end):
            return None
        prefix, middle, suffix = found[1], found[2], found[3].removesuffix(end)
        if not prefix.strip() or not middle.strip():
            return None
        try:
            double = self._text([*user, Message("assistant", "", (one, two))], (), answered=True).removeprefix(start)
        except TemplateError:
            return CallForm(prefix, middle, suffix, None)
        between = double.removesuffix(end).partition("\ue010a1\ue011")[2].partition("\ue010n2\ue011")[0]
        if between.startswith(suffix) and between.endswith(prefix) and len(between) >= len(suffix) + len(prefix):
            return CallForm(prefix, middle, suffix, between[len(suffix) : len(between) - len(prefix)])
        return CallForm(prefix, middle, suffix, None)

    def _shows_tools(self, user: Sequence[Message]) -> bool:
        probe = Tool("probe_7", {"type": "function", "function": {"name": "probe_7", "parameters": {"type": "object"}}})
        try:
            return "probe_7" in self._text(user, (probe,), own=True)
        except TemplateError:
            return False

    # --- private: rendering ------------------------------------------------------------------------------------------

    def _text(
        self, messages: Sequence[Message], tools: Sequence[Tool], *, answered: bool = False, own: bool = True
    ) -> str:
        """Return a whole rendering as text."""
        marks = _Marks()
        rendered = self._render(messages, tools, marks, answered=answered, own=own)
        return "".join(segment.text for segment in marks.split(rendered))

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        marks: _Marks,
        *,
        answered: bool = False,
        own: bool | None = None,
    ) -> str:
        if not (self.knows_tools if own is None else own):
            messages, tools = in_words(messages, tools), ()
        chat = [_marked(message, marks) for message in messages]
        given: dict[str, Any] = {
            _MARKS: marks,
            "bos_token": self._bos,
            "eos_token": self._eos,
            "add_generation_prompt": not answered,
        }
        if tools:
            given["tools"] = [_unmarked(tool.definition) for tool in tools]
        try:
            rendered = str(self._template.render(messages=chat, **given))
        except self._errors as error:
            raise TemplateError(f"the chat template of this model refuses the conversation: {error}") from error
        return self._bos + rendered if self._add_bos and not rendered.startswith(self._bos) else rendered

    def _cut(self, found: Sequence[Segment]) -> list[Segment]:
        """Cut what the template wrote behind the words that open an answer."""
        if not self.opener:
            return list(found)
        cut: list[Segment] = []
        for segment in found:
            if not segment.control:
                cut.append(segment)
                continue
            parts = segment.text.split(self.opener)
            texts = [part + self.opener for part in parts[:-1]] + [parts[-1]]
            cut += [Segment(text, control=True) for text in texts if text]
        return cut


def in_words(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Tell of tools, calls and their outputs in plain messages."""
    told = [_told(message) for message in messages]
    if not tools:
        return told
    lines = "\n".join(json.dumps(tool.definition["function"], ensure_ascii=False) for tool in tools)
    about = _TOOLS_IN_WORDS.format(tools=lines)
    if told and told[0].role == "system":
        return [Message("system", f"{told[0].text}\n\n{about}"), *told[1:]]
    return [Message("system", about), *told]


def _told(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.text}\n</tool_response>")
    if not message.calls:
        return message
    form = IN_WORDS
    calls = [f"{form.prefix}{call.name}{form.middle}{call.arguments}{form.suffix}" for call in message.calls]
    return Message(message.role, "\n".join([message.text, *calls] if message.text else calls))


def _marked(message: Message, marks: _Marks) -> dict[str, Any]:
    """Return a message as templates take it, with marks for all that is in it."""
    chat: dict[str, Any] = {"role": message.role, "content": marks.make("t", message.text) if message.text else ""}
    if message.calls:
        chat["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": marks.make("n", call.name), "arguments": marks.make("a", call.arguments)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        chat["tool_call_id"] = message.answers
    return chat


def _unmarked(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a tool's definition without what could be taken for a mark of ours."""
    written = json.dumps(definition, ensure_ascii=False)
    unmarked: dict[str, Any] = json.loads(written.replace("\ue000", "")) if "\ue000" in written else definition
    return unmarked


def _to_json(context: Mapping[str, Any], value: Any, indent: int | None = None, **_: object) -> str:  # noqa: ANN401 - what a template may pass
    """Be the filter `tojson` of a rendering."""
    marks = context[_MARKS]
    assert isinstance(marks, _Marks), "every rendering has its marks"
    return marks.to_json(value, indent)


def _refuse(message: str) -> str:
    raise TemplateError(message)
