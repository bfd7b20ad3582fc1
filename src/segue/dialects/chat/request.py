"""The Chat Completions dialect: requests. Its settings are in `settings`, its stream is read in `stream`.

What a model says in one go is several items in the Responses API and one message here: a run of reasoning, text and
calls becomes one `assistant` message. The outputs of its calls stand right behind it, since that is where this API
wants them. Most servers of this API only imitate OpenAI's; where they differ, the provider's profile says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from segue.dialects.chat.settings import chat_fields
from segue.dialects.chat.stream import ChatDecoder, ReturnedReasoning
from segue.dialects.headers import HeaderLines, bearer_headers
from segue.dialects.incremental import RenderedTurn, RenderState, cache_key, close_list, render_history
from segue.dialects.interface import NOTHING, Rendered, ReplyDecoder, TurnRequest
from segue.dialects.item_renderer import ItemRenderer
from segue.dialects.provider_profiles import PLAIN, ProviderProfile
from segue.dialects.render_cache import RenderCache
from segue.dialects.rules import Preset, RequestBuilder, Rule, write_settings
from segue.dialects.tools import custom_names
from segue.protocol.codec import encode
from segue.protocol.item_types import ContentPart, FunctionCallItem, MessageItem, ReasoningItem, ToolOutputItem
from segue.protocol.problems import Problem

_returned = msgspec.json.Decoder(ReturnedReasoning)


class ChatDialect:
    """Chat Completions, as `provider` speaks it.

    Args:
        provider: who can read the reasoning that this upstream writes.
        profile: what its server does differently from others.
        preset: fields of every request.
    """

    name = "chat"

    def __init__(self, provider: str, *, profile: ProviderProfile = PLAIN, preset: Preset | None = None) -> None:
        self.provider = provider
        self._preset = preset
        self._profile = profile
        self._fields = chat_fields(profile)
        self._makes_cache_key = "prompt_cache_key" in profile.chat_extensions
        self._cache_key = f"chat:{provider}:{profile.cache_key}"

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
        parts = render_history(request.history, self, cache.view(self._cache_key, RenderedTurn))
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
        if request.settings.instructions is not None:
            head += _message("system", request.settings.instructions)
        pieces = [head, *(part.closed for part in parts if part.closed), b"".join(state.open.messages())]
        warnings = (*builder.warnings, *state.warnings)
        return Rendered(close_list(pieces, b"]}"), warnings, frozenset(builder.own_fields))

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> ReplyDecoder:
        """Make the reader of one reply."""
        custom = custom_names(request.settings.tools)
        return ChatDecoder(request.response_id, self.provider, custom=custom, warnings=warnings)

    def start(self) -> RenderState[OpenChatMessages]:
        """Return the state before the first item."""
        return RenderState(OpenChatMessages())

    def renderer(self, state: RenderState[OpenChatMessages]) -> ChatRenderer:
        """Return a renderer that goes on from `state`."""
        return ChatRenderer(state, self.provider, self._profile)


#: What becomes of the items and parts of a history, for the documentation. `ChatRenderer` does it.
CHAT_ITEMS: Mapping[str, Rule] = {
    "message (user)": Rule("translated", "A message with its parts."),
    "message (system, developer)": Rule("translated", "A message of role `system`."),
    "message (assistant)": Rule("translated", "Text of the `assistant` message of its run; a refusal becomes text."),
    "phase of a message": Rule("dropped", "This API has none."),
    "annotations of a text": Rule("dropped", "This API has none."),
    "id and status of an item, logprobs of a text": Rule("ours", "They are about the item and not for the model."),
    "function_call": Rule(
        "translated",
        "A tool call of the `assistant` message of its run. Gemini gets the words that it wants for a call that is not "
        "its own.",
    ),
    "custom_tool_call": Rule("translated", "A tool call with the argument `input`."),
    "function_call_output, custom_tool_call_output": Rule("translated", "A `tool` message, behind its call."),
    "reasoning of this upstream": Rule("translated", "In the field it came in (`reasoning_content`, …)."),
    "reasoning of another provider": Rule("dropped", "Only its own provider can use it."),
    "…_call, …_call_output of another kind": Rule("translated", "A function named after the type, and its output."),
    "compaction": Rule("refused", "It stands for a history that only its provider can read."),
    "other fields of items and parts": Rule("dropped", "This API has nothing like them."),
    "other items": Rule("dropped", "This API has nothing like them."),
    "input_text, output_text": Rule("carried", "As `text`."),
    "input_image with image_url": Rule("carried", "As `image_url`; in a tool's output, in a user message behind it."),
    "input_image with file_id": Rule("dropped", "Files belong to one provider; a note stands in its place."),
    "input_file with file_data": Rule("carried", "As `file`."),
    "input_file with file_id": Rule("carried", "OpenAI's own API only; else dropped, and a note stands in its place."),
    "input_file with file_url": Rule("dropped", "This API takes no URL of a file; a note stands in its place."),
    "input_audio": Rule("carried"),
    "other parts": Rule("dropped", "A note stands in their place."),
}


class OpenChatMessages(msgspec.Struct, frozen=True):
    """Messages that may still grow: what one side of the conversation said since the other side spoke.

    The model's side is one message: its `texts`, `calls` (JSON), `reasoning` (field and text) and `details`; `extras`
    go with the calls to come. The user's side is the `results` of tools and `others`, both whole messages. One of the
    two sides is empty.
    """

    texts: tuple[str, ...] = ()
    calls: tuple[bytes, ...] = ()
    reasoning: tuple[tuple[str, str], ...] = ()
    details: tuple[msgspec.Raw, ...] = ()
    extras: tuple[tuple[str, msgspec.Raw], ...] = ()
    results: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Roughly what it holds in memory."""
        words = sum(map(len, self.texts)) + sum(len(text) for _, text in self.reasoning)
        return words + sum(map(len, (*self.calls, *self.results, *self.others, *map(bytes, self.details))))

    def messages(self) -> Iterable[bytes]:
        """Write the messages as they are now, each with a comma after it."""
        if self.texts or self.calls or self.reasoning or self.details:
            yield self._assistant()
        yield from self.results
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


def _message(role: str, content: object) -> bytes:
    return encode({"role": role, "content": content}) + b","


class ChatRenderer(ItemRenderer[OpenChatMessages]):
    """Writes items as messages."""

    def __init__(self, state: RenderState[OpenChatMessages], provider: str, profile: ProviderProfile) -> None:
        super().__init__(state, provider)
        run = state.open
        self._profile = profile
        self._texts, self._calls = list(run.texts), list(run.calls)
        self._reasoning, self._details, self._extras = list(run.reasoning), list(run.details), dict(run.extras)
        self._results, self._others = list(run.results), list(run.others)

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
        )

    def _to_model(self) -> None:
        if self._results or self._others:
            self._close()

    def _to_user(self) -> None:
        if self._texts or self._calls or self._reasoning or self._details or self._extras:
            self._close()

    def _close(self) -> None:
        self._closed += self._open().messages()
        for pieces in (self._texts, self._calls, self._reasoning, self._details, self._results, self._others):
            pieces.clear()
        self._extras.clear()

    def _add_message(self, message: MessageItem) -> None:
        if message.role == "assistant":
            self._to_model()
            if self._texts and not self._calls:  # the model said two messages, so they stay two
                self._close()
            self._texts.append("".join(map(self._text, message.parts())))
            return
        self._to_user()
        role = "user" if message.role == "user" else "system"
        self._others.append(_message(role, self._content(message.parts())))

    def _content(self, parts: list[ContentPart]) -> object:
        values = [self._part(part) for part in parts]
        if len(values) == 1 and values[0]["type"] == "text":
            return values[0]["text"]
        return values

    def _part(self, part: ContentPart) -> dict[str, Any]:
        if part.type == "input_image" and part.image_url is not None:
            image = {"url": part.image_url} | ({} if part.detail is None else {"detail": part.detail})
            return {"type": "image_url", "image_url": image}
        if part.type == "input_file" and part.file_data is not None:
            name = {} if part.filename is None else {"filename": part.filename}
            return {"type": "file", "file": {"file_data": part.file_data} | name}
        if part.type == "input_file" and part.file_id is not None and "file_id" in self._profile.chat_extensions:
            return {"type": "file", "file": {"file_id": part.file_id}}
        if part.type == "input_audio" and part.input_audio is not None:
            return {"type": "input_audio", "input_audio": part.input_audio}
        return {"type": "text", "text": self._text(part)}

    def _add_call(self, call: FunctionCallItem) -> None:
        self._to_model()
        self._calls.append(self._call(call))

    def _call(self, call: FunctionCallItem) -> bytes:
        value: dict[str, Any] = {"id": call.call_id, "type": "function"}
        value["function"] = {"name": call.name, "arguments": call.arguments}
        extra = self._extras.get(call.call_id)
        signature = self._profile.foreign_call_signature
        if extra is not None:
            value["extra_content"] = extra
        elif signature and not self._calls:
            value["extra_content"] = {"google": {"thought_signature": signature}}
        return encode(value)

    def _add_output(self, output: ToolOutputItem) -> None:
        """A tool's output is text here: images and files of it follow in a message of their own."""
        self._to_user()
        texts: list[dict[str, Any]] = []
        media: list[dict[str, Any]] = []
        for part in output.parts():
            value = self._part(part)
            (texts if value["type"] == "text" else media).append(value)
        if media:
            texts.append({"type": "text", "text": f"[{len(media)} attached in the message behind this one]"})
            note = {"type": "text", "text": f"[attached to the output of tool call {output.call_id}]"}
            self._others.append(_message("user", [note, *media]))
        content: object = texts[0]["text"] if len(texts) == 1 else texts or ""
        message = {"role": "tool", "tool_call_id": output.call_id, "content": content}
        self._results.append(encode(message) + b",")

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
