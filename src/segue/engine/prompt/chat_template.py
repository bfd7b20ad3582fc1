"""A model's own chat template: from messages to the text of a prompt, whole or only what a turn adds.

The template (Jinja, from the model's file) only sees placeholders. The text of a message, the name and arguments of a
call, and everything that it would write as JSON are filled in afterwards, as *segments* in which no control tokens are
recognised. So whatever a user writes, `<|im_end|>` included, is text to the model.

Each segment is tokenized by itself, and the output of the template is cut where an answer begins. So the prompt of a
turn is exactly the prompt of the turn before and a few more segments, if the template only appends. Most templates do.
`continuation` tries that on short conversations, once for each sequence of roles, and returns None if it does not hold
(a template may repeat the tools, or shorten earlier answers).

When a template is compiled, it is probed with small conversations to find its capabilities. Not here: tokens, and how a
conversation is rearranged for a template that does not support all of it (`normalize`).
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

from segue.engine.prompt.messages import PromptMessage, PromptTool, ToolCall
from segue.engine.prompt.normalize import TemplateCapabilities, normalize


class Segment(msgspec.Struct, frozen=True):
    """A piece of the prompt; only in a `control` segment are control tokens like `<|im_end|>` recognised."""

    text: str
    control: bool


class TemplateError(ValueError):
    """The chat template drops, repeats or refuses a part of the conversation."""


class CallFormat(msgspec.Struct, frozen=True):
    """How a model writes a call: `prefix` name `middle` arguments `suffix`, and `between` two calls.

    `between` is None if the model can only make one call at a time.
    """

    prefix: str
    middle: str
    suffix: str
    between: str | None


class ReasoningFormat(msgspec.Struct, frozen=True):
    """Between which markers a model writes its thoughts, and the marker of the message that it writes `behind` them."""

    opening: str
    closing: str
    behind: str = ""


#: The format of models that write messages in channels, as gpt-oss: thoughts, words about calls, calls, the answer.
CHANNELS = ReasoningFormat("<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant")
#: How such a model begins its answer.
ANSWER_CHANNEL = "<|channel|>final<|message|>"
#: How it calls a function; the token behind the arguments ends its answer.
CHANNEL_CALL_FORMAT = CallFormat("<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", "", None)

#: The markers of all other models that think.
REASONING_FORMATS = tuple(
    ReasoningFormat(*markers)
    for markers in (
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|inner_prefix|>", "<|inner_suffix|>"),
        ("<|channel>thought", "<channel|>"),
        ("◁think▷", "◁/think▷"),
        ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    )
)
#: The fields of a message in which templates look for its thoughts.
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")

#: The format of calls for a template that does not support tools: the one that most models were trained on.
DEFAULT_CALL_FORMAT = CallFormat('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", "\n")

_TOOLS_AS_TEXT = (
    "You may call functions. Each line describes one:\n{tools}\n\n"
    'To call one, write nothing but:\n<tool_call>\n{{"name": NAME, "arguments": ARGUMENTS}}\n</tool_call>'
)

#: A function to find out if a template writes tools; some templates need more than a name.
_PROBE = PromptTool("probe_7", {"type": "function", "function": {"name": "probe_7", "parameters": {"type": "object"}}})

_TAG = re.compile("<[^<>]*>")
#: These two tags mark what a model wrote itself, for training; in a prompt they are a plain block.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
_PLACEHOLDER = re.compile("\ue000([a-z])([0-9]+)\ue001")
_IN_JSON = re.compile('"\ue000a([0-9]+)\ue001"|\ue000[a-z]([0-9]+)\ue001')
_ARGUMENTS = re.compile('"\ue000a[0-9]+\ue001"')
_PLACEHOLDERS = "segue_placeholders"
_MAX_SHAPES = 256
#: For longer turns the whole conversation is rendered: what is tried must not grow with what a client sends.
_MAX_SHAPE_LENGTH = 16


class _Placeholders:
    """The texts of one rendering, and the placeholders that stand for them.

    The kinds: `t` is text, `n` a name, which may be repeated (with an output, say), `a` arguments, `j` JSON, and `d`
    what the template may write any number of times: a tool's description, or thoughts.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._needed: set[int] = set()  # the template must write them
        self._repeatable: set[int] = set()

    def make(self, kind: Literal["t", "n", "a", "j", "d"], text: str) -> str:
        """Return the placeholder for a text."""
        self._texts.append(text)
        if kind in "dn":
            self._repeatable.add(len(self._texts) - 1)
        if kind in "tna":
            self._needed.add(len(self._texts) - 1)
        return f"\ue000{kind}{len(self._texts) - 1}\ue001"

    def to_json(self, value: Any, indent: int | None = None) -> str:  # noqa: ANN401 - what a template may pass
        """Do what the template's filter `tojson` does: arguments are JSON already, and a text becomes a JSON string.

        Arguments within JSON keep a placeholder, since some templates cut the last brace off a call to add to it.
        """
        found = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
        if found is not None:
            return str(value) if found[1] == "a" else self.make("j", f'"{self._characters(int(found[2]))}"')
        written = json.dumps(value, ensure_ascii=False, indent=indent)
        if _ARGUMENTS.search(written):
            return _IN_JSON.sub(lambda found: self._nested(found[1], found[2]), written)
        return self.make("j", _IN_JSON.sub(lambda found: self._characters(int(found[2])), written))

    def _nested(self, arguments: str | None, other: str) -> str:
        """Return the placeholder for a part of JSON: arguments as a value, or the characters of a string."""
        return f"\ue000a{arguments}\ue001" if arguments else self.make("j", self._characters(int(other)))

    def _characters(self, number: int) -> str:
        self._needed.discard(number)
        return json.dumps(self._texts[number], ensure_ascii=False)[1:-1]

    def split(self, rendered: str) -> list[Segment]:
        """Fill the texts into what the template wrote."""
        pieces = _PLACEHOLDER.split(rendered)
        numbers = [int(number) for number in pieces[2::3]]
        single = [number for number in numbers if number not in self._repeatable]
        broken = any(char in piece for piece in pieces[::3] for char in ("\ue000", "\ue001", "\\ue000"))
        if broken or len(single) != len(set(single)) or not self._needed <= set(numbers):
            raise TemplateError("the chat template does not write every message exactly once")
        found = []
        for index in range(0, len(pieces), 3):
            found.append(Segment(pieces[index], control=True))
            if index + 2 < len(pieces):
                found.append(Segment(self._texts[int(pieces[index + 2])], control=False))
        return [segment for segment in found if segment.text]


class _Description(str):
    """A placeholder that survives if a template writes a dictionary as Python does."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{self}'"


class ChatTemplate:
    """A chat template, compiled. `bos` and `eos` are texts; `add_bos` says that a prompt must begin with `bos`.

    A template that asks for the date always gets `now`, so that the same conversation has the same prompt tomorrow.
    """

    def __init__(
        self, source: str, *, bos: str = "", eos: str = "", add_bos: bool = False, now: datetime | None = None
    ) -> None:
        # imported here: a gateway without a local model starts without jinja2
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
        #: Between which markers the model thinks; None if it does not, as far as the template knows.
        self.reasoning = _find_reasoning_format(source)
        #: Whether it writes messages in channels.
        self.in_channels = self.reasoning == CHANNELS
        shown = [field for field in _REASONING_FIELDS if re.search(rf"[.'\"]{field}\b", source)]
        self._reasoning_fields = tuple(shown) if self.reasoning is not None else ()
        self._capabilities = TemplateCapabilities()
        self._answer_prefix = ""
        self._content_in_parts = self._needs_full_tools = False
        self._probe()

    def _probe(self) -> None:
        """Find the capabilities of the template. Raises TemplateError if it accepts no message."""
        user, answer = [PromptMessage("user", "a")], PromptMessage("assistant", "\ue010")
        if not self._is_accepted(user):
            self._content_in_parts = True  # as templates for images want it
        prompt = self._text(user, ())
        without = self._text(user, (), answered=True).removesuffix(self._eos)
        head, _, end = self._try([*user, answer]).partition("\ue010")
        self._answer_prefix = "" if self.in_channels else _find_answer_prefix(prompt, head)
        self.answer_opener = prompt.removeprefix(without) + self._answer_prefix if prompt.startswith(without) else ""
        opening = None if self.reasoning is None else self.reasoning.opening
        #: Whether a prompt ends with the first marker, so that the answer begins within the thoughts.
        self.thinks_at_once = opening is not None and prompt.rstrip().endswith(opening)
        self._capabilities = self._find_capabilities()
        heads = (head,) if self._answer_prefix else (head, prompt)
        found = CHANNEL_CALL_FORMAT if self.in_channels else self._find_call_format(user, heads, end)
        self.supports_tools = found is not None and self._probe_tools(user) and self._probe_calls(user)
        self.call_format = found if found is not None and self.supports_tools else DEFAULT_CALL_FORMAT

    def segments(self, messages: Sequence[PromptMessage], tools: Sequence[PromptTool] = ()) -> list[Segment]:
        """Write a whole prompt, up to where the answer begins."""
        if not self.supports_tools:
            messages, tools = tools_as_text(messages, tools), ()
        placeholders = _Placeholders()
        return self._cut(placeholders.split(self._render(messages, tools, placeholders)))

    def continuation(self, added: Sequence[PromptMessage], tools: Sequence[PromptTool] = ()) -> list[Segment] | None:
        """Write what follows a prompt: its answer and the messages after that; None if the template does not append."""
        shape = (bool(tools), *((one.role, bool(one.text), len(one.calls), bool(one.reasoning)) for one in added))
        if len(shape) > _MAX_SHAPE_LENGTH:
            return None
        if shape not in self._shapes:
            self._shapes[shape] = self._is_append_only(added, tools)
            if len(self._shapes) > _MAX_SHAPES:
                self._shapes.popitem(last=False)
        if not self._shapes[shape]:
            return None
        before = [PromptMessage("user", "a")]
        start = len(self.segments(before, tools))
        return self.segments([*before, *added], tools)[start:]

    # --- private: probing --------------------------------------------------------------------------------------------

    def _is_append_only(self, added: Sequence[PromptMessage], tools: Sequence[PromptTool]) -> bool:
        """Try if the template appends `added`, and writes it alike, after several histories."""
        user, answer, system = PromptMessage("user", "a"), PromptMessage("assistant", "b"), PromptMessage("system", "c")
        used = (
            PromptMessage("assistant", "", (ToolCall("call_1", "f", "{}"),), reasoning="e"),
            PromptMessage("tool", "d", call_id="call_1"),
        )
        histories: list[list[PromptMessage]] = [[user], [user, answer, user], [user, answer] * 3 + [user]]
        histories += [[user, *used], [user, *used, answer, user]]
        histories += [[system, *history] for history in histories]
        written: set[tuple[Segment, ...]] = set()
        for history in histories:
            try:
                before = self.segments(history, tools)
            except TemplateError:
                continue  # a template without system messages, or without tools, never gets such a history
            try:
                after = self.segments([*history, *added], tools)
            except TemplateError:
                return False
            if after[: len(before)] != before:
                return False
            written.add(tuple(after[len(before) :]))
        return len(written) == 1

    def _find_capabilities(self) -> TemplateCapabilities:
        user, answer, system = PromptMessage("user", "a"), PromptMessage("assistant", "b"), PromptMessage("system", "c")
        repeated_roles = self._is_accepted([user, user, answer, answer, user])
        if self._is_accepted([system, system, user]) and self._is_accepted([user, answer, system, user]):
            return TemplateCapabilities("anywhere", repeated_roles)
        # a template that writes the system message into the last question has no place for it after an output
        first = self._is_accepted([system, user]) and self._is_accepted([system, user, answer])
        return TemplateCapabilities("first" if first else "never", repeated_roles)

    def _find_call_format(self, user: Sequence[PromptMessage], heads: Sequence[str], end: str) -> CallFormat | None:
        """Find the format of calls from two of them; None if the template does not write calls, or not as JSON.

        `heads` are the texts that may come before a call, first the one before a plain answer: the opening of a
        thought, for example, is no part of the call.
        """
        one, two = (
            ToolCall("call_a", "\ue010n1\ue011", "\ue010a1\ue011"),
            ToolCall("call_b", "\ue010n2\ue011", "\ue010a2\ue011"),
        )
        single = self._try([*user, PromptMessage("assistant", "", (one,))])
        head = next((head for head in heads if head and single.startswith(head)), None)
        if head is None or not end or not single.endswith(end):
            return None
        found = re.fullmatch("(.*)\ue010n1\ue011(.*)\ue010a1\ue011(.*)", single.removeprefix(head), re.DOTALL)
        if found is None:
            return None
        prefix, middle, suffix = found[1], found[2], found[3].removesuffix(end)
        if not prefix.strip() or not middle.strip() or prefix.startswith(end):
            return None  # the prefix would be taken for the end of the answer
        if middle.endswith("{") and suffix.startswith("}"):
            return None  # the template writes the arguments one by one, so they are not JSON
        double = self._try([*user, PromptMessage("assistant", "", (one, two))]).removeprefix(head)
        between = double.removesuffix(end).partition("\ue010a1\ue011")[2].partition("\ue010n2\ue011")[0]
        if between.startswith(suffix) and between.endswith(prefix) and len(between) >= len(suffix) + len(prefix):
            return CallFormat(prefix, middle, suffix, between[len(suffix) : len(between) - len(prefix)])
        return CallFormat(prefix, middle, suffix, None)

    def _probe_tools(self, user: Sequence[PromptMessage]) -> bool:
        """Say if the template writes tools; find out if it refuses definitions that lack optional fields."""
        for needs_full_tools in (False, True):
            self._needs_full_tools = needs_full_tools
            try:
                return _PROBE.name in self._text(user, (_PROBE,))
            except TemplateError:
                continue
        return False

    def _probe_calls(self, user: Sequence[PromptMessage]) -> bool:
        """Say if the template writes a call and its output; find out what else it supports of calls."""
        calls = ToolCall("call_a", "f", "{}"), ToolCall("call_b", "g", "{}")
        outputs = [PromptMessage("tool", "d", call_id=call.id) for call in calls]
        if not self._is_accepted([*user, PromptMessage("assistant", "", calls[:1]), *outputs[:1]]):
            return False
        beside = [*user, PromptMessage("assistant", "b", calls[:1]), *outputs[:1]]
        answered = [*beside, PromptMessage("assistant", "c"), *user]  # some drop the text once there is an answer
        self._capabilities = msgspec.structs.replace(
            self._capabilities,
            text_with_calls=self._is_accepted(beside) and self._is_accepted(answered),
            parallel_calls=self._is_accepted([*user, PromptMessage("assistant", "", calls), *outputs]),
            user_after_outputs=self._is_accepted(
                [*user, PromptMessage("assistant", "", calls[:1]), *outputs[:1], *user]
            ),
        )
        return True

    def _is_accepted(self, messages: Sequence[PromptMessage]) -> bool:
        try:
            return bool(self._text(messages, ()))
        except TemplateError:
            return False

    def _try(self, messages: Sequence[PromptMessage]) -> str:
        """Return what the template writes of a conversation that ends with an answer; nothing if it refuses it."""
        try:
            return self._text(messages, (), answered=True)
        except TemplateError:
            return ""

    # --- private: rendering ------------------------------------------------------------------------------------------

    def _text(self, messages: Sequence[PromptMessage], tools: Sequence[PromptTool], *, answered: bool = False) -> str:
        """Return a whole rendering as text, with tools and calls as the template writes them."""
        placeholders = _Placeholders()
        rendered = self._render(messages, tools, placeholders, answered=answered)
        return "".join(segment.text for segment in placeholders.split(rendered))

    def _render(
        self,
        messages: Sequence[PromptMessage],
        tools: Sequence[PromptTool],
        placeholders: _Placeholders,
        *,
        answered: bool = False,
    ) -> str:
        chat = [self._chat_message(message, placeholders) for message in normalize(messages, self._capabilities)]
        given: dict[str, Any] = {
            _PLACEHOLDERS: placeholders,
            "bos_token": self._bos,
            "eos_token": self._eos,
            "add_generation_prompt": not answered,
        }
        if tools:
            definitions = (_with_all_fields(tool) if self._needs_full_tools else tool.definition for tool in tools)
            given["tools"] = [
                _with_description_placeholders(_without_placeholders(definition), placeholders)
                for definition in definitions
            ]
        try:
            rendered = str(self._template.render(messages=chat, **given))
        except self._errors as error:
            raise TemplateError(f"the chat template of this model refuses the conversation: {error}") from error
        if not answered:
            rendered += self._answer_prefix
        return self._bos + rendered if self._add_bos and not rendered.startswith(self._bos) else rendered

    def _chat_message(self, message: PromptMessage, placeholders: _Placeholders) -> dict[str, Any]:
        chat = _with_placeholders(message, placeholders, in_parts=self._content_in_parts)
        if message.reasoning and self._reasoning_fields:
            thoughts = placeholders.make("d", message.reasoning)
            chat |= dict.fromkeys(self._reasoning_fields, thoughts)
        return chat

    def _cut(self, found: Sequence[Segment]) -> list[Segment]:
        """Cut what the template wrote after each opening of an answer."""
        if not self.answer_opener:
            return list(found)
        cut: list[Segment] = []
        for segment in found:
            if not segment.control:
                cut.append(segment)
                continue
            parts = segment.text.split(self.answer_opener)
            texts = [part + self.answer_opener for part in parts[:-1]] + [parts[-1]]
            cut += [Segment(text, control=True) for text in texts if text]
        return cut


def tools_as_text(messages: Sequence[PromptMessage], tools: Sequence[PromptTool]) -> list[PromptMessage]:
    """Return messages in which tools, calls and their outputs are plain text, for a template without tools."""
    plain = [_call_as_text(message) for message in messages]
    if not tools:
        return plain
    lines = "\n".join(json.dumps(tool.definition["function"], ensure_ascii=False) for tool in tools)
    about = _TOOLS_AS_TEXT.format(tools=lines)
    if plain and plain[0].role == "system":
        return [PromptMessage("system", f"{plain[0].text}\n\n{about}"), *plain[1:]]
    return [PromptMessage("system", about), *plain]


def _call_as_text(message: PromptMessage) -> PromptMessage:
    if message.role == "tool":
        return PromptMessage("user", f"<tool_response>\n{message.text}\n</tool_response>")
    if not message.calls:
        return message
    as_text = DEFAULT_CALL_FORMAT
    calls = [f"{as_text.prefix}{one.name}{as_text.middle}{one.arguments}{as_text.suffix}" for one in message.calls]
    return PromptMessage(message.role, "\n".join([message.text, *calls] if message.text else calls))


def _with_placeholders(message: PromptMessage, placeholders: _Placeholders, *, in_parts: bool) -> dict[str, Any]:
    """Return a message in the form for templates, with placeholders for everything that a client wrote."""
    text = placeholders.make("t", message.text) if message.text else ""
    chat: dict[str, Any] = {"role": message.role, "content": [{"type": "text", "text": text}] if in_parts else text}
    if message.calls:
        chat["tool_calls"] = [
            {
                "id": _call_id(call.id),
                "type": "function",
                "function": {
                    "name": placeholders.make("n", call.name),
                    "arguments": placeholders.make("a", call.arguments),
                },
            }
            for call in message.calls
        ]
    if message.role == "tool":
        chat["tool_call_id"] = _call_id(message.call_id)
    return chat


def _call_id(client_id: str) -> str:
    """Return an id of nine letters and digits: some templates accept no other, and a client's may be any text."""
    return sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _find_reasoning_format(source: str) -> ReasoningFormat | None:
    """Return the format whose markers stand in a template, which writes earlier thoughts or cuts them off."""
    if CHANNELS.opening in source:
        return CHANNELS
    return next((one for one in REASONING_FORMATS if one.closing in source), None)


def _find_answer_prefix(prompt: str, head: str) -> str:
    """Return the text to add to a prompt so that a plain answer begins, if the model would write words there itself.

    `head` is what the template writes before a plain answer. Words, like the name of a channel, would be taken for a
    part of the answer; tags alone, like those of a thought, are left to the model.
    """
    opening = head.removeprefix(prompt) if head.startswith(prompt) else ""
    return opening if _TAG.sub("", opening).strip() else ""


def _with_all_fields(tool: PromptTool) -> dict[str, Any]:
    """Return a tool's definition with the optional fields that it lacks."""
    function = {"description": "", **tool.definition["function"]}
    function["parameters"] = {"type": "object", "properties": {}, **tool.parameters}
    return {**tool.definition, "function": function}


def _without_placeholders(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a tool's definition without anything that looks like a placeholder."""
    written = json.dumps(definition, ensure_ascii=False)
    cleaned: dict[str, Any] = json.loads(written.replace("\ue000", "")) if "\ue000" in written else definition
    return cleaned


def _with_description_placeholders(value: Any, placeholders: _Placeholders) -> Any:  # noqa: ANN401 - any JSON value
    """Return a tool's definition with placeholders for descriptions: not every template writes them as JSON."""
    if isinstance(value, list):
        return [_with_description_placeholders(item, placeholders) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _Description(placeholders.make("d", item))
        if _is_description(key, item)
        else _with_description_placeholders(item, placeholders)
        for key, item in value.items()
    }


def _is_description(key: str, item: object) -> bool:
    return key == "description" and isinstance(item, str) and bool(item)


def _to_json(context: Mapping[str, Any], value: Any, indent: int | None = None, **_: object) -> str:  # noqa: ANN401 - what a template may pass
    """Apply the filter `tojson` of a template."""
    placeholders = context[_PLACEHOLDERS]
    assert isinstance(placeholders, _Placeholders), "every rendering has placeholders"
    return placeholders.to_json(value, indent)


def _any_block(tag: re.Match[str]) -> str:
    return f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}"


def _refuse(message: str) -> str:
    raise TemplateError(message)
