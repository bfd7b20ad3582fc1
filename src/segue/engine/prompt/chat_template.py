"""A model's own chat template: from messages to the text of a prompt, whole or only what a turn adds.

The template (Jinja, from the model's file) only ever sees marks: the text of a message, the name and arguments of a
call, and everything it would write as JSON are put in afterwards, as *segments* that may not hold control tokens. So
whatever a user writes, `<|im_end|>` included, is text to the model.

Each segment becomes tokens by itself, and what the template writes is cut where an answer begins. So the prompt of a
turn is the prompt of the turn before, then a few segments, exactly, if the template writes what comes later without
changing what it wrote before. Most do; `continuation` tries that on stand-ins, once for each sequence of roles, and
says None where it does not hold (a template that repeats the tools, or shortens earlier answers).

What a template takes is found out when it is compiled, by writing small conversations with it. Not here: tokens, and
how a conversation is arranged for a template that does not take it as it is (`adapting`).
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from importlib import import_module
from typing import Any, Literal

import msgspec

from segue.engine.prompt.messages import Message, Tool, ToolCall
from segue.engine.prompt.normalize import Habits, adapt


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

#: What must be shown of a function to find out whether a template shows any; some need more than a name.
_PROBE = Tool("probe_7", {"type": "function", "function": {"name": "probe_7", "parameters": {"type": "object"}}})

_TAG = re.compile("<[^<>]*>")
#: Only training needs to know what a model wrote itself; for a prompt the two tags are any block.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
_MARK = re.compile("\ue000([a-z])([0-9]+)\ue001")
_IN_JSON = re.compile('"\ue000a([0-9]+)\ue001"|\ue000[a-z]([0-9]+)\ue001')
_ARGUMENTS = re.compile('"\ue000a[0-9]+\ue001"')
_MARKS = "segue_marks"
_KNOWN_SHAPES = 256
#: Longer turns are read whole: what is tried on stand-ins must not grow with what a client sends.
_LONGEST_SHAPE = 16


class _Marks:
    """The texts of one rendering, and the marks that stand for them.

    `t` is text, `n` a name, `a` arguments, `j` JSON, `d` what a tool says of itself, which may be written again.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.once: set[int] = set()  # those that must be written exactly once
        self._often: set[int] = set()

    def make(self, kind: Literal["t", "n", "a", "j", "d"], text: str) -> str:
        """Return the mark for a text."""
        self._texts.append(text)
        if kind == "d":
            self._often.add(len(self._texts) - 1)
        elif kind != "j":
            self.once.add(len(self._texts) - 1)
        return f"\ue000{kind}{len(self._texts) - 1}\ue001"

    def to_json(self, value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - what a template may pass
        """Be the template's `tojson`: arguments are JSON already, a text becomes a string of its characters.

        A call stays open, since some templates take its last brace off to write more behind it.
        """
        found = _MARK.fullmatch(value) if isinstance(value, str) else None
        if found is not None:
            return str(value) if found[1] == "a" else self.make("j", f'"{self._characters(int(found[2]))}"')
        written = json.dumps(value, ensure_ascii=False, indent=indent)
        if _ARGUMENTS.search(written):
            return _IN_JSON.sub(lambda mark: self._open(mark[1], mark[2]), written)
        return self.make("j", _IN_JSON.sub(lambda mark: self._characters(int(mark[2])), written))

    def _open(self, arguments: str | None, other: str) -> str:
        """Return the mark for what stands inside JSON: arguments as the value that they are, or a string's text."""
        return f"\ue000a{arguments}\ue001" if arguments else self.make("j", self._characters(int(other)))

    def _characters(self, number: int) -> str:
        self.once.discard(number)
        return json.dumps(self._texts[number], ensure_ascii=False)[1:-1]

    def split(self, rendered: str) -> list[Segment]:
        """Put the texts into what the template wrote."""
        pieces = _MARK.split(rendered)
        numbers = [number for number in map(int, pieces[2::3]) if number not in self._often]
        broken = any(char in piece for piece in pieces[::3] for char in ("\ue000", "\ue001", "\\ue000"))
        if broken or len(numbers) != len(set(numbers)) or not self.once <= set(numbers):
            raise TemplateError("the chat template does not write every message exactly once")
        found = []
        for index in range(0, len(pieces), 3):
            found.append(Segment(pieces[index], control=True))
            if index + 2 < len(pieces):
                found.append(Segment(self._texts[int(pieces[index + 2])], control=False))
        return [segment for segment in found if segment.text]


class _Description(str):
    """A mark that stays one where a template writes a dictionary as Python does."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{self}'"


class ChatTemplate:
    """A chat template, compiled. `bos` and `eos` are texts; `add_bos` says that a prompt must begin with `bos`.

    `now` is what a template that asks for the date is told, always: the same conversation has the same prompt tomorrow.
    """

    def __init__(
        self, source: str, *, bos: str = "", eos: str = "", add_bos: bool = False, now: datetime | None = None
    ) -> None:
        # imported here: the gateway starts without it where no local model is used
        sandbox, jinja = import_module("jinja2.sandbox"), import_module("jinja2")
        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = (now or datetime.now().astimezone()).strftime
        environment.filters["tojson"] = jinja.pass_context(_to_json)
        known = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError)
        self._errors: tuple[type[Exception], ...] = (jinja.TemplateError, *known)
        self._bos, self._eos, self._add_bos = bos, eos, add_bos
        self._shapes: OrderedDict[tuple[object, ...], bool] = OrderedDict()
        try:
            self._template = environment.from_string(_GENERATION.sub(_any_block, source))
        except self._errors as error:
            raise TemplateError(f"it is no template: {error}") from error
        self._habits = Habits()
        self._lead = ""
        self._in_parts = self._fills_tools = False
        self._find_out()

    def _find_out(self) -> None:
        """Find out what the template takes and writes. Raises TemplateError if it takes no message."""
        user, answer = [Message("user", "a")], Message("assistant", "\ue010")
        if not self._takes(user):
            self._in_parts = True  # as those for pictures have it
        prompt = self._text(user, ())
        without = self._text(user, (), answered=True).removesuffix(self._eos)
        head, _, end = self._try([*user, answer]).partition("\ue010")
        self._lead = _find_lead(prompt, head)
        self.opener = prompt.removeprefix(without) + self._lead if prompt.startswith(without) else ""
        self._habits = self._find_habits()
        found = self._find_form(user, (head,) if self._lead else (head, prompt), end)
        self.knows_tools = found is not None and self._shows_tools(user) and self._takes_outputs(user)
        self.form = found if found is not None and self.knows_tools else IN_WORDS

    def segments(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[Segment]:
        """Write a whole prompt, which ends where the answer begins."""
        if not self.knows_tools:
            messages, tools = in_words(messages, tools), ()
        marks = _Marks()
        return self._cut(marks.split(self._render(messages, tools, marks)))

    def continuation(self, added: Sequence[Message], tools: Sequence[Tool] = ()) -> list[Segment] | None:
        """Write what follows a prompt: the answer it had and the messages behind it; None if that cannot be told."""
        shape = (bool(tools), *((one.role, bool(one.text), len(one.calls)) for one in added))
        if len(shape) > _LONGEST_SHAPE:
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

    def _find_habits(self) -> Habits:
        user, answer, system = Message("user", "a"), Message("assistant", "b"), Message("system", "c")
        neighbours = self._takes([user, user, answer, answer, user])
        if self._takes([system, system, user]) and self._takes([user, answer, system, user]):
            return Habits("anywhere", neighbours)
        # one that writes the system message into the last question has no place for it behind the output of a call
        first = self._takes([system, user]) and self._takes([system, user, answer])
        return Habits("first" if first else "never", neighbours)

    def _find_form(self, user: Sequence[Message], heads: Sequence[str], end: str) -> CallForm | None:
        """Find out from two calls how calls are written; None if the template does not show them, or not so.

        `heads` is what may stand before one, that before a plain answer first: a thought, for one, is not of the call.
        """
        one, two = (
            ToolCall("call_a", "\ue010n1\ue011", "\ue010a1\ue011"),
            ToolCall("call_b", "\ue010n2\ue011", "\ue010a2\ue011"),
        )
        single = self._try([*user, Message("assistant", "", (one,))])
        head = next((head for head in heads if head and single.startswith(head)), None)
        if head is None or not end or not single.endswith(end):
            return None
        found = re.fullmatch("(.*)\ue010n1\ue011(.*)\ue010a1\ue011(.*)", single.removeprefix(head), re.DOTALL)
        if found is None:
            return None
        prefix, middle, suffix = found[1], found[2], found[3].removesuffix(end)
        if not prefix.strip() or not middle.strip() or prefix.startswith(end):
            return None  # what begins as an answer ends is never read
        if middle.endswith("{") and suffix.startswith("}"):
            return None  # the template writes the arguments one by one, so it is not JSON that stands there
        double = self._try([*user, Message("assistant", "", (one, two))]).removeprefix(head)
        between = double.removesuffix(end).partition("\ue010a1\ue011")[2].partition("\ue010n2\ue011")[0]
        if between.startswith(suffix) and between.endswith(prefix) and len(between) >= len(suffix) + len(prefix):
            return CallForm(prefix, middle, suffix, between[len(suffix) : len(between) - len(prefix)])
        return CallForm(prefix, middle, suffix, None)

    def _shows_tools(self, user: Sequence[Message]) -> bool:
        for self._fills_tools in (False, True):
            try:
                return _PROBE.name in self._text(user, (_PROBE,))
            except TemplateError:
                continue
        return False

    def _takes_outputs(self, user: Sequence[Message]) -> bool:
        """Tell whether the template writes a call with its output; find out what may stand beside the call."""
        calls = ToolCall("call_a", "f", "{}"), ToolCall("call_b", "g", "{}")
        outputs = [Message("tool", "d", answers=call.id) for call in calls]
        if not self._takes([*user, Message("assistant", "", calls[:1]), *outputs[:1]]):
            return False
        self._habits = msgspec.structs.replace(
            self._habits,
            text_with_calls=self._takes([*user, Message("assistant", "b", calls[:1]), *outputs[:1]]),
            many_calls=self._takes([*user, Message("assistant", "", calls), *outputs]),
            user_behind_outputs=self._takes([*user, Message("assistant", "", calls[:1]), *outputs[:1], *user]),
        )
        return True

    def _takes(self, messages: Sequence[Message]) -> bool:
        try:
            return bool(self._text(messages, ()))
        except TemplateError:
            return False

    def _try(self, messages: Sequence[Message]) -> str:
        """Return what is written of a conversation that ends with an answer; nothing if it is refused."""
        try:
            return self._text(messages, (), answered=True)
        except TemplateError:
            return ""

    # --- private: rendering ------------------------------------------------------------------------------------------

    def _text(self, messages: Sequence[Message], tools: Sequence[Tool], *, answered: bool = False) -> str:
        """Return a whole rendering as text, with the template's own tools and calls."""
        marks = _Marks()
        rendered = self._render(messages, tools, marks, answered=answered)
        return "".join(segment.text for segment in marks.split(rendered))

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Tool], marks: _Marks, *, answered: bool = False
    ) -> str:
        chat = [_marked(message, marks, in_parts=self._in_parts) for message in adapt(messages, self._habits)]
        given: dict[str, Any] = {
            _MARKS: marks,
            "bos_token": self._bos,
            "eos_token": self._eos,
            "add_generation_prompt": not answered,
        }
        if tools:
            definitions = (_filled(tool) if self._fills_tools else tool.definition for tool in tools)
            given["tools"] = [_described(_unmarked(definition), marks) for definition in definitions]
        try:
            rendered = str(self._template.render(messages=chat, **given))
        except self._errors as error:
            raise TemplateError(f"the chat template of this model refuses the conversation: {error}") from error
        if not answered:
            rendered += self._lead
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


def _marked(message: Message, marks: _Marks, *, in_parts: bool) -> dict[str, Any]:
    """Return a message as templates take it, with marks for all that is in it."""
    text = marks.make("t", message.text) if message.text else ""
    chat: dict[str, Any] = {"role": message.role, "content": [{"type": "text", "text": text}] if in_parts else text}
    if message.calls:
        chat["tool_calls"] = [
            {
                "id": _call_id(call.id),
                "type": "function",
                "function": {"name": marks.make("n", call.name), "arguments": marks.make("a", call.arguments)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        chat["tool_call_id"] = _call_id(message.answers)
    return chat


def _call_id(client_id: str) -> str:
    """Return an id of nine letters and digits: some templates take no other, and a client's could be any text."""
    return sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _find_lead(prompt: str, head: str) -> str:
    """Return what must follow a prompt to open a plain answer, if a model would else write words of its own there.

    `head` is what the template writes before a plain answer. Words, as of a channel, would be taken for the answer's;
    tags alone, as of a thought, are left to the model.
    """
    lead = head.removeprefix(prompt) if head.startswith(prompt) else ""
    return lead if _TAG.sub("", lead).strip() else ""


def _filled(tool: Tool) -> dict[str, Any]:
    """Return a tool's definition with what it may lack."""
    function = {"description": "", **tool.definition["function"]}
    function["parameters"] = {"type": "object", "properties": {}, **tool.parameters}
    return {**tool.definition, "function": function}


def _unmarked(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a tool's definition without what could be taken for a mark of ours."""
    written = json.dumps(definition, ensure_ascii=False)
    unmarked: dict[str, Any] = json.loads(written.replace("\ue000", "")) if "\ue000" in written else definition
    return unmarked


def _described(value: Any, marks: _Marks) -> Any:  # noqa: ANN401 - any JSON value
    """Return a tool's definition with marks for its descriptions: not every template writes them as JSON."""
    if isinstance(value, list):
        return [_described(item, marks) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _Description(marks.make("d", item)) if _is_description(key, item) else _described(item, marks)
        for key, item in value.items()
    }


def _is_description(key: str, item: object) -> bool:
    return key == "description" and isinstance(item, str) and bool(item)


def _to_json(context: Mapping[str, Any], value: Any, indent: int | None = None, **_: object) -> str:  # noqa: ANN401 - what a template may pass
    """Be the filter `tojson` of a rendering."""
    marks = context[_MARKS]
    assert isinstance(marks, _Marks), "every rendering has its marks"
    return marks.to_json(value, indent)


def _any_block(tag: re.Match[str]) -> str:
    return f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}"


def _refuse(message: str) -> str:
    raise TemplateError(message)
