"""The Chat Completions dialect: requests. Its settings are in `settings`, its stream is read in `stream`.

What a model says in one go is several items in the Responses API and one message here: a run of reasoning, text and
calls becomes one `assistant` message. The outputs of its calls stand right behind it, since that is where this API
wants them. Texts of the system's that stand first become one message, since many templates take only one; later ones
become the user's, between tags, unless the provider takes them anywhere. Most servers of this API only imitate
OpenAI's; where they differ, the provider's profile says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import asdict

from segue.dialects.call_ids import CHAT_CALL_IDS, CallIdForm
from segue.dialects.chat.passed_request import pass_request
from segue.dialects.chat.settings import chat_fields
from segue.dialects.chat.stream import ChatDecoder, ReturnedReasoning
from segue.dialects.headers import HeaderLines, bearer_headers
from segue.dialects.incremental import RenderedTurn, RenderState, cache_key, close_list, render_history
from segue.dialects.interface import NOTHING, CountingEndpoint, Rendered, ReplyDecoder, TurnRequest
from segue.dialects.item_renderer import NO_OUTPUT, ItemRenderer, late_output_note, system_note
from segue.dialects.items import image_url
from segue.dialects.loss_warnings import FOREIGN_REASONING, LATE_OUTPUT, UNANSWERED_CALL
from segue.dialects.provider_profiles import PLAIN, ProviderProfile
from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache
from segue.dialects.rules import Preset, RequestBuilder, Rule, write_settings
from segue.dialects.tools import custom_names, wire_name
from segue.protocol.codec import encode
from segue.protocol.item_types import ContentPart, FunctionCallItem, MessageItem, ReasoningItem, ToolOutputItem
from segue.protocol.problems import Problem
from segue.protocol.requests import NativeBody

_returned = msgspec.json.Decoder(ReturnedReasoning)


#: What some servers refuse about a history, by the names that `refused_fields` knows: the cells of a profile that has a
#: history without it. The first three are taken by all servers of this API.
FORMS: Mapping[str, Mapping[str, Any]] = {
    "reasoning": {"returned_reasoning": "never"},
    "call_ids": {"call_id_characters": "alphanumeric", "call_id_length": 9, "call_id_length_exact": True},
    "user_after_tool": {"user_after_tool": False},
    "call_signature": {"foreign_call_signature": "skip_thought_signature_validator"},
    "call_reasoning": {"call_reasoning_field": "reasoning_content", "call_reasoning_filler": " "},
}


def _view_name(provider: str, profile: ProviderProfile) -> str:
    return f"chat:{provider}:{profile.cache_key}"


class ChatDialect:
    """Chat Completions, as `provider` speaks it.

    Args:
        provider: who can read the reasoning that this upstream writes.
        profile: what its server does differently from others.
        preset: fields of every request.
    """

    name = "chat"
    models_path = "/models"
    counting: CountingEndpoint | None = None

    def __init__(self, provider: str, *, profile: ProviderProfile = PLAIN, preset: Preset | None = None) -> None:
        self.provider = provider
        self._preset = preset
        self._profile = profile
        self._fields = chat_fields(profile)
        self._makes_cache_key = "prompt_cache_key" in profile.chat_extensions
        known = asdict(profile)
        self._forms = tuple(name for name, cells in FORMS.items() if {**known, **cells} != known)
        self._cache_key = _view_name(provider, profile)

    def path(self, model: str) -> str:  # noqa: ARG002 - other APIs have the model in the path
        """Return where to POST."""
        return "/chat/completions"

    def headers(self, api_key: str | None) -> HeaderLines:
        """Return the header lines of this API."""
        return bearer_headers(api_key)

    def render(
        self, request: TurnRequest, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        """Write the request body."""
        builder = RequestBuilder(
            request.model, request.settings, preset=self._preset, profile=self._profile, without=without
        )
        write_settings(builder, self._fields)
        parts = self._render_history(request, cache, builder)
        state = parts[-1].state
        problem = builder.problem or state.problem
        if problem is not None:
            return problem
        unnamed = self._makes_cache_key and request.settings.prompt_cache_key is None
        if unnamed and builder.is_wanted("prompt_cache_key"):
            builder.fields["prompt_cache_key"] = cache_key(request.tenant, request.settings.instructions, state)
        builder.fields["stream"] = True
        if builder.is_wanted("stream_options"):
            builder.fields["stream_options"] = {"include_usage": True}
        head = encode(builder.fields)[:-1] + b',"messages":['
        texts = [text for text in (request.settings.instructions_text, *state.preamble) if text.strip()]
        if texts:
            head += _message("system", "\n\n".join(texts))
            if not state.open.begun and self._profile.system_messages == "first":  # templates want a question
                head += _SILENCE
        pieces = [head, *(part.closed for part in parts if part.closed), b"".join(state.open.messages())]
        lost = (loss for loss in state.open.losses if loss not in state.warnings)
        warnings = (*builder.warnings, *state.warnings, *lost)
        return Rendered(close_list(pieces, b"]}"), warnings, frozenset(builder.own_fields))

    def pass_on(
        self,
        request: TurnRequest,
        native: NativeBody,
        cache: RenderCache,  # noqa: ARG002 - others render what they have kept
        *,
        without: frozenset[str] = NOTHING,
    ) -> Rendered | Problem:
        """Write the body of a request that came in this API."""
        return pass_request(native, request.model, self._profile, preset=self._preset, without=without)

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> ReplyDecoder:
        """Make the reader of one reply."""
        custom = custom_names(request.settings.tools)
        return ChatDecoder(request.response_id, self.provider, custom=custom, warnings=warnings)

    def _render_history(
        self, request: TurnRequest, cache: RenderCache, builder: RequestBuilder
    ) -> list[RenderedTurn[OpenChatMessages]]:
        """Render the history as this provider takes it, which may have been learned from what it refused."""
        cells = {
            name: value for form in self._forms if not builder.is_wanted(form) for name, value in FORMS[form].items()
        }
        readable = builder.is_wanted(SEALED_REASONING)
        if readable and not cells:
            return render_history(request.history, self, cache.view(self._cache_key, RenderedTurn))
        provider = self.provider if readable else ""  # as if another provider had made the reasoning in it
        profile = msgspec.structs.replace(self._profile, **cells)
        view = cache.view(_view_name(provider, profile), RenderedTurn)
        return render_history(request.history, _ChatRenderers(provider, profile), view)

    def start(self) -> RenderState[OpenChatMessages]:
        """Return the state before the first item."""
        return RenderState(OpenChatMessages())

    def renderer(self, state: RenderState[OpenChatMessages]) -> ChatRenderer:
        """Return a renderer that goes on from `state`."""
        return ChatRenderer(state, self.provider, self._profile)


class _ChatRenderers:
    """Renders histories for a server that has refused something of the last one."""

    def __init__(self, provider: str, profile: ProviderProfile) -> None:
        self._provider = provider
        self._profile = profile

    def start(self) -> RenderState[OpenChatMessages]:
        return RenderState(OpenChatMessages())

    def renderer(self, state: RenderState[OpenChatMessages]) -> ChatRenderer:
        return ChatRenderer(state, self._provider, self._profile)


#: What becomes of the items and parts of a history, for the documentation. `ChatRenderer` does it.
CHAT_ITEMS: Mapping[str, Rule] = {
    "message (user)": Rule("translated", "A message with its parts."),
    "message (system, developer)": Rule(
        "translated",
        "Where nothing is before it, part of the one message of role `system`, else a text of the user's between "
        '`<system>` tags. A provider with `system_messages = "any"` gets a message of role `system` each.',
    ),
    "message (assistant)": Rule("translated", "Text of the `assistant` message of its run; a refusal becomes text."),
    "phase of a message": Rule("dropped", "This API has none."),
    "annotations of a text": Rule("dropped", "This API has none."),
    "id and status of an item, logprobs of a text": Rule("ours", "They are about the item and not for the model."),
    "function_call": Rule(
        "translated",
        "A tool call of the `assistant` message of its run. Another id replaces one that an earlier call has, or that "
        "is too long; an object holds arguments that are no JSON object. Gemini gets the words that it wants for a "
        "call that is not its own.",
    ),
    "custom_tool_call": Rule("translated", "A tool call with the argument `input`."),
    "function_call_output, custom_tool_call_output": Rule(
        "translated",
        "A `tool` message, behind its call; the user's, if it comes after the model spoke again. A call without one "
        "gets a note.",
    ),
    "reasoning of this upstream": Rule("translated", "In the field it came in (`reasoning_content`, …)."),
    "reasoning of another provider": Rule("dropped", "Only its own provider can use it."),
    "…_call, …_call_output of another kind": Rule("translated", "A function named after the type, and its output."),
    "compaction of this gateway": Rule("translated", "The summary, as a message of the user's."),
    "compaction of another": Rule("refused", "It stands for a history that only its maker can read."),
    "additional_tools, configuration_update": Rule("translated", "Tools and settings of each request behind them."),
    "other fields of items and parts": Rule("dropped", "This API has nothing like them."),
    "other items": Rule("dropped", "This API has nothing like them."),
    "input_text, output_text": Rule("carried", "As `text`."),
    "input_image with image_url": Rule("carried", "As `image_url`; in a tool's output, in a user message behind it."),
    "input_image with file_id": Rule("dropped", "Files belong to one provider; a note stands in its place."),
    "input_file with file_data": Rule("carried", "As `file`."),
    "input_file with file_id": Rule("carried", "OpenAI's own API only; else dropped, and a note stands in its place."),
    "input_file with file_url": Rule("dropped", "This API takes no URL of a file; a note stands in its place."),
    "input_audio": Rule("carried"),
    "other parts": Rule("dropped", "Their text is sent, if they have one; else a note stands in their place."),
}


class OpenChatMessages(msgspec.Struct, frozen=True):
    """Messages that may still grow: what one side of the conversation said since the other side spoke.

    The model's side is one message: its `texts`, `calls` (JSON), `reasoning` (field and text) and `details`; `extras`
    go with the calls to come. The user's side is the `results` of tools and `others`, both whole messages. One of the
    two sides is empty. The calls with the ids in `waiting` have no output yet. `begun` is true once there is any
    message. Where no message of a user may follow one of a tool (`parted`), a note of the model's stands between the
    two.
    """

    texts: tuple[str, ...] = ()
    calls: tuple[bytes, ...] = ()
    reasoning: tuple[tuple[str, str], ...] = ()
    details: tuple[msgspec.Raw, ...] = ()
    extras: tuple[tuple[str, msgspec.Raw], ...] = ()
    results: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()
    waiting: tuple[str, ...] = ()
    begun: bool = False
    parted: bool = False

    @property
    def losses(self) -> Iterable[str]:
        """The warnings about what these messages leave out, or add, if nothing more comes."""
        if (self.reasoning or self.details) and not self.texts and not self.calls:  # no server takes that
            yield FOREIGN_REASONING
        if self.waiting and (self.results or self.others):
            yield UNANSWERED_CALL

    @property
    def size_bytes(self) -> int:
        """Roughly what it holds in memory."""
        words = sum(map(len, self.texts)) + sum(len(text) for _, text in self.reasoning)
        return words + sum(map(len, (*self.calls, *self.results, *self.others, *map(bytes, self.details))))

    def messages(self) -> Iterable[bytes]:
        """Write the messages as they are now, each with a comma after it."""
        if self.texts or self.calls:
            yield self._assistant()
        yield from self.results
        if self.results or self.others:
            for call_id in self.waiting:
                yield _output(call_id, NO_OUTPUT)
        if (self.results or self.waiting) and self.others and self.parted:
            yield _BETWEEN
        yield from self.others

    def _assistant(self) -> bytes:
        message: dict[str, Any] = {"role": "assistant"}
        message["content"] = "\n\n".join(self.texts) if self.texts or not self.calls else None
        for field, text in self.reasoning:
            message[field] = message.get(field, "") + text
        if self.details:
            message["reasoning_details"] = list(self.details)
        if self.calls:
            message["tool_calls"] = [msgspec.Raw(call) for call in self.calls]
        return encode(message) + b","


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _message(role: str, content: object) -> bytes:
    return encode({"role": role, "content": content}) + b","


def _output(call_id: str, content: object) -> bytes:
    return encode({"role": "tool", "tool_call_id": call_id, "content": content}) + b","


_SILENCE = _message("user", "[the user has said nothing yet]")
#: Mistral answers 400 "Unexpected role 'user' after role 'tool'".
_BETWEEN = _message("assistant", "[the user speaks next]")


def _call_id_form(profile: ProviderProfile) -> CallIdForm:
    length = CHAT_CALL_IDS.length if profile.call_id_length is None else profile.call_id_length
    return CallIdForm(profile.call_id_characters, length, profile.call_id_length_exact)


class ChatRenderer(ItemRenderer[OpenChatMessages]):
    """Writes items as messages."""

    def __init__(self, state: RenderState[OpenChatMessages], provider: str, profile: ProviderProfile) -> None:
        super().__init__(state, provider, _call_id_form(profile))
        run = state.open
        self._profile = profile
        self._begun = run.begun
        self._texts, self._calls = list(run.texts), list(run.calls)
        self._reasoning, self._details, self._extras = list(run.reasoning), list(run.details), dict(run.extras)
        self._results, self._others = list(run.results), list(run.others)
        self._waiting = dict.fromkeys(run.waiting)

    def finish(self) -> RenderedTurn[OpenChatMessages]:
        """Return what was closed, and the run that is open."""
        return RenderedTurn(b"".join(self._closed), self._state.build(self._open()))

    def _open(self) -> OpenChatMessages:
        return OpenChatMessages(
            tuple(self._texts),
            tuple(self._calls),
            tuple(self._reasoning),
            tuple(self._details),
            tuple(self._extras.items()),
            tuple(self._results),
            tuple(self._others),
            tuple(self._waiting),
            self._begun,
            not self._profile.user_after_tool,
        )

    def _to_model(self) -> None:
        self._begun = True
        if self._results or self._others:
            self._close()

    def _to_user(self) -> None:
        self._begun = True
        if self._texts or self._calls or self._reasoning or self._details or self._extras:
            self._close()

    def _close(self) -> None:
        run = self._open()
        for loss in run.losses:
            self._state.warn(loss)
        self._closed += run.messages()
        if self._results or self._others:
            self._waiting.clear()
        for pieces in (self._texts, self._calls, self._reasoning, self._details, self._results, self._others):
            pieces.clear()
        self._extras.clear()

    def _add_message(self, message: MessageItem) -> None:
        if message.role == "assistant":
            self._add_answer("".join(map(self._text, message.parts())))
        elif message.role == "user":
            self._to_user()
            self._others.append(_message("user", self._content(message.parts())))
        elif self._profile.system_messages == "any":
            self._to_user()
            self._others.append(_message("system", self._content(message.parts())))
        else:
            self._add_system("".join(map(self._text, message.parts())))

    def _add_answer(self, text: str) -> None:
        if not text:  # Mistral, for one, refuses a message of the assistant's with neither text nor calls
            return
        self._to_model()
        if self._texts and not self._calls:  # the model said two messages, so they stay two
            self._close()
        self._texts.append(text)

    def _add_system(self, text: str) -> None:
        """Add a text of the system's for a template that takes one system message, at the start."""
        if not self._begun:
            self._state.preamble = (*self._state.preamble, text)
        elif text.strip():
            self._to_user()
            self._others.append(_message("user", system_note(text)))

    def _content(self, parts: list[ContentPart]) -> object:
        return self._as_content([self._part(part) for part in parts])

    def _as_content(self, values: list[dict[str, Any]]) -> object:
        """Return parts as the content of a message: as one string, if they are texts."""
        if all(value["type"] == "text" for value in values) and (
            len(values) == 1 or self._profile.text_parts == "string"
        ):
            return "\n".join(value["text"] for value in values)
        return values

    def _part(self, part: ContentPart) -> dict[str, Any]:
        if part.type == "input_image" and part.image_url is not None:
            image = {"url": image_url(part.image_url)} | ({} if part.detail is None else {"detail": part.detail})
            return {"type": "image_url", "image_url": image}
        if part.type == "input_file" and part.file_data is not None:
            name = {} if part.filename is None else {"filename": part.filename}
            return {"type": "file", "file": {"file_data": part.file_data} | name}
        if part.type == "input_file" and part.file_id is not None and "file_id" in self._profile.chat_extensions:
            return {"type": "file", "file": {"file_id": part.file_id}}
        if part.type == "input_audio" and part.input_audio is not None:
            return {"type": "input_audio", "input_audio": part.input_audio}
        return _text_part(self._text(part))

    def _add_call(self, call: FunctionCallItem) -> None:
        self._to_model()
        field = self._profile.call_reasoning_field
        if field and not any(name == field for name, _ in self._reasoning):
            self._reasoning.append((field, self._profile.call_reasoning_filler))
        self._calls.append(self._call(call))

    def _call(self, call: FunctionCallItem) -> bytes:
        call_id = self._call_id(call)
        self._waiting[call_id] = None
        value: dict[str, Any] = {"id": call_id, "type": "function"}
        length = self._profile.tool_name_length
        name = call.name if length is None else wire_name(call.name, length)
        value["function"] = {"name": name, "arguments": self._arguments(call)}
        extra = self._extras.get(call.call_id)
        signature = self._profile.foreign_call_signature
        if extra is not None:
            value["extra_content"] = extra
        elif signature and not self._calls:
            value["extra_content"] = {"google": {"thought_signature": signature}}
        return encode(value)

    def _add_output(self, output: ToolOutputItem) -> None:
        """A tool's output is text for most servers: images and files of it follow in a message of their own."""
        self._to_user()
        call_id = self._output_id(output)
        values = [self._part(part) for part in output.parts()]
        if call_id not in self._waiting:
            self._state.warn(LATE_OUTPUT)
            self._others.append(_message("user", self._as_content([_text_part(late_output_note(call_id)), *values])))
            return
        del self._waiting[call_id]
        media = [value for value in values if value["type"] != "text"]
        if media and not self._profile.media_in_tool_outputs:
            values = [value for value in values if value["type"] == "text"]
            values.append(_text_part(f"[{len(media)} attached in the message behind this one]"))
            self._others.append(
                _message("user", [_text_part(f"[attached to the output of tool call {call_id}]"), *media])
            )
        self._results.append(_output(call_id, self._as_content(values) if values else ""))

    def _add_reasoning(self, reasoning: ReasoningItem) -> None:
        content = self._unseal(reasoning)
        if content is None or self._profile.returned_reasoning == "never":
            return
        returned = self._read_sealed(content, _returned)
        if returned is None:
            return
        self._to_model()
        if returned.field is not None:
            if self._texts and not self._calls:  # reasoning after a text begins another message
                self._close()
            self._reasoning.append((returned.field, reasoning.text))
        self._details += map(msgspec.Raw.copy, returned.details)
        self._extras.update((call_id, extra.copy()) for call_id, extra in returned.calls.items())
