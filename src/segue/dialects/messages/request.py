"""The Anthropic Messages dialect: requests. Its settings are in `settings`, its stream is read in `stream`.

Consecutive items of one side become the blocks of one message, in their order. Outputs of tools stand first in the
user's message after their calls, as this API demands. The provider caches prefixes that end in a mark
(`cache_control`), so the dialect marks three places: the end of what comes before the messages, the end of the
user's last message, and the place of that mark in the turn before. Marks move from turn to turn; the blocks between
them stay the same, and the cache compares only those.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from segue.dialects.call_ids import MESSAGES_CALL_IDS
from segue.dialects.headers import JSON_IN_EVENTS_OUT, HeaderLines
from segue.dialects.incremental import RenderedTurn, RenderState, close_list, render_history
from segue.dialects.interface import NOTHING, CountingEndpoint, Rendered, ReplyDecoder, TurnRequest
from segue.dialects.item_renderer import NO_OUTPUT, ItemRenderer, late_output_note, system_note
from segue.dialects.items import data_url
from segue.dialects.loss_warnings import (
    DETAIL_LEFT_OUT,
    FOREIGN_REASONING,
    LATE_OUTPUT,
    THOUGHTS_LEFT_OUT,
    UNANSWERED_CALL,
)
from segue.dialects.messages.native_turns import native_messages
from segue.dialects.messages.settings import MESSAGES_FIELDS, NAME_LENGTH, finish_settings, replaced_names
from segue.dialects.messages.stream import MessagesDecoder, Thought
from segue.dialects.messages.thinking import ToolLoop
from segue.dialects.passed_on import passed_on
from segue.dialects.provider_profiles import PLAIN, ProviderProfile
from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache, RenderCacheView
from segue.dialects.rules import Preset, RequestBuilder, Rule, write_settings
from segue.dialects.token_counting import MESSAGES_COUNTING
from segue.dialects.tools import custom_names, wire_name
from segue.history.chains import path
from segue.protocol.codec import encode
from segue.protocol.item_types import ContentPart, FunctionCallItem, MessageItem, ReasoningItem, ToolOutputItem
from segue.protocol.problems import Problem
from segue.protocol.requests import NativeBody

#: This API demands `max_tokens`. All models since Claude 4 can write this many.
MAX_TOKENS = 32_000
#: The limit for a model that has refused ours: all that speak this API can write this many.
_LEAST_LIMIT = 4096
VERSION = "2023-06-01"

#: The fields that clients of this API set, over those of an upstream's configuration.
_KNOWN = frozenset(
    {
        *("system", "max_tokens", "tools", "tool_choice", "thinking", "output_config", "metadata", "service_tier"),
        *("stop_sequences", "temperature", "top_k", "top_p"),
    }
)
#: The field that is only for the gateway.
_OURS = frozenset({"thread"})

_EPHEMERAL = {"cache_control": {"type": "ephemeral"}}
_MARK = b',"cache_control":{"type":"ephemeral"}'
#: What follows the last block of a message, before which a mark can stand.
MESSAGE_END = b"}]},"
_START = b'{"type":"text","text":"[the conversation begins with what the assistant says]"}'
_SILENCE = b'{"type":"text","text":"[the user has said nothing yet]"}'
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

_NO_RESULT = encode({"type": "text", "text": NO_OUTPUT})

_thoughts = msgspec.json.Decoder(Thought)


class HistoryParts(NamedTuple):
    """A rendered history; it is `plain` if every later turn that continues it will render it the same way."""

    parts: list[RenderedTurn[OpenMessageBlocks]]
    plain: bool


class NativeHistory(msgspec.Struct, frozen=True):
    """All messages of a request that came in this API (None: those in its body), and what they leave out.

    They are `in_its_words` if every turn was said in this API.
    """

    messages: tuple[bytes, ...] | None
    warnings: tuple[str, ...] = ()
    in_its_words: bool = False


class MessagesDialect:
    """Anthropic Messages, as `provider` speaks it.

    Args:
        provider: who can read the reasoning that this upstream writes.
        max_tokens: the longest answer of a request that sets no limit.
        profile: what its server does differently from others.
        preset: fields of every request.
    """

    name = "messages"
    models_path = "/models?limit=1000"  # this API lists 20 of them if it is not asked for more
    counting: CountingEndpoint | None = MESSAGES_COUNTING

    def __init__(
        self,
        provider: str,
        *,
        max_tokens: int = MAX_TOKENS,
        profile: ProviderProfile = PLAIN,
        preset: Preset | None = None,
    ) -> None:
        self.provider = provider
        self._preset = preset
        self._profile = profile
        self._max_tokens = max_tokens
        self._cache_key = f"messages:{provider}:{profile.cache_key}"

    def path(self, model: str) -> str:  # noqa: ARG002 - other APIs have the model in the path
        """Return where to POST."""
        return "/messages"

    def headers(self, api_key: str | None) -> HeaderLines:
        """Return the header lines of this API."""
        key = () if api_key is None else (("x-api-key", api_key),)
        return (*JSON_IN_EVENTS_OUT, ("anthropic-version", VERSION), *key)

    def render(
        self, request: TurnRequest, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        """Write the request body."""
        builder = self.settings_of(request, without)
        parts = self.render_parts(request, builder, cache).parts
        return write_body(builder, parts)

    def settings_of(self, request: TurnRequest, without: frozenset[str]) -> RequestBuilder:
        """Write all fields that do not depend on the history."""
        builder = RequestBuilder(
            request.model, request.settings, preset=self._preset, profile=self._profile, without=without
        )
        limited = request.settings.max_output_tokens is not None
        taken = limited or builder.is_wanted("max_tokens")
        builder.fields["max_tokens"] = self._max_tokens if taken else min(self._max_tokens, _LEAST_LIMIT)
        write_settings(builder, MESSAGES_FIELDS)
        return builder

    def render_parts(self, request: TurnRequest, builder: RequestBuilder, cache: RenderCache) -> HistoryParts:
        """Render the history, and write the fields that depend on it."""
        plain = builder.is_wanted(SEALED_REASONING)
        if plain:
            parts = render_history(request.history, self, self.view(cache))
        else:  # as if another provider had made the reasoning in it
            view = cache.view(f"{self._cache_key}:unread", RenderedTurn)
            parts = render_history(request.history, MessagesDialect("", profile=self._profile), view)
        if finish_settings(builder, parts[-1].state.open.present_loop):
            view = cache.view(f"{self._cache_key}:bare", RenderedTurn)
            parts = render_history(request.history, _WithoutThoughts(self.provider, self._profile), view)
            plain = False
        state = parts[-1].state
        builder.problem = builder.problem or state.problem
        write_system(builder, state.preamble)
        return HistoryParts(parts, plain and state.open.begun)  # else a note stands in it that a later turn has not

    def view(self, cache: RenderCache) -> RenderCacheView[RenderedTurn[OpenMessageBlocks]]:
        """Return the turns as they are rendered with all their thoughts."""
        return cache.view(self._cache_key, RenderedTurn)

    def pass_on(
        self,
        request: TurnRequest,
        native: NativeBody,
        cache: RenderCache,
        *,
        without: frozenset[str] = NOTHING,
    ) -> Rendered | Problem:
        """Write the body of a request that came in this API."""
        whole = self.native_history(request, native, cache)
        if isinstance(whole, Problem):
            return whole
        fields: dict[str, bytes | tuple[bytes, ...]] = {} if whole.messages is None else {"messages": whole.messages}
        passed = self.write_native(request, native, fields, without=_OURS | without)
        return msgspec.structs.replace(passed, warnings=whole.warnings)

    def native_history(self, request: TurnRequest, native: NativeBody, cache: RenderCache) -> NativeHistory | Problem:
        """Return all messages of a request that came in this API, in its words as far as all turns have them."""
        if request.history.parent is None:
            return NativeHistory(None, in_its_words=True)
        messages = native_messages(path(request.history.parent), native)
        if messages is not None:
            return NativeHistory(messages, in_its_words=True)
        # a turn came through another door, or had an upstream of another API
        rendered = render_history(request.history, self, self.view(cache))
        state = rendered[-1].state
        if state.problem is not None:
            return state.problem
        closed = [part.closed for part in rendered if part.closed]
        messages = close_list([b"[", *closed, *state.open.messages()], b"]")
        return NativeHistory(messages, state.warnings)

    def write_native(
        self,
        request: TurnRequest,
        native: NativeBody,
        fields: Mapping[str, bytes | tuple[bytes, ...]],
        *,
        without: frozenset[str],
    ) -> Rendered:
        """Write a body as it came, with these fields instead of its own, and `without` some."""
        own: dict[str, bytes | tuple[bytes, ...]] = {"model": encode(request.model), "stream": b"true"}
        changed = {name: value for name, value in (own | {**native.fields, **fields}).items() if name not in without}
        return passed_on(native.body, changed, preset=self._preset, known=_KNOWN, without=without)

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> ReplyDecoder:
        """Make the reader of one reply."""
        custom = custom_names(request.settings.tools)
        effort = (request.settings.reasoning or {}).get("effort")
        names = replaced_names(request.settings.tools)
        return MessagesDecoder(
            request.response_id, self.provider, custom=custom, names=names, effort=effort, warnings=warnings
        )

    def start(self) -> RenderState[OpenMessageBlocks]:
        """Return the state before the first item."""
        return RenderState(OpenMessageBlocks())

    def renderer(self, state: RenderState[OpenMessageBlocks]) -> MessagesRenderer:
        """Return a renderer that goes on from `state`."""
        return MessagesRenderer(state, self.provider, self._profile)


class _WithoutThoughts:
    """Renders a history without thoughts, for a model that may not think in this turn."""

    def __init__(self, provider: str, profile: ProviderProfile) -> None:
        self._provider = provider
        self._profile = profile

    def start(self) -> RenderState[OpenMessageBlocks]:
        return RenderState(OpenMessageBlocks())

    def renderer(self, state: RenderState[OpenMessageBlocks]) -> MessagesRenderer:
        return MessagesRenderer(state, self._provider, self._profile, bare=True)


def write_system(builder: RequestBuilder, preamble: tuple[str, ...]) -> None:
    """Write `system`: the instructions, and the texts that stand before the first message."""
    texts = [text for text in (builder.settings.instructions_text, *preamble) if text.strip()]
    if texts:
        builder.fields["system"] = [{"type": "text", "text": text} for text in texts]


def write_head(builder: RequestBuilder, thread: Mapping[str, str] | None, *, marked: bool) -> bytes:
    """Write all that comes before the messages, if `marked` with a mark at its end: it is the same in every turn.

    In a thread of the upstream, a mark for the whole request takes the place of the one in the last message: each
    request has its own, and those of earlier requests are never too many.
    """
    fields = builder.fields
    if marked and "system" in fields:
        fields["system"][-1] |= _EPHEMERAL
    elif marked and "tools" in fields:
        fields["tools"][-1] |= _EPHEMERAL
    fields["stream"] = True
    if thread is not None:
        fields |= {"thread": thread} | (_EPHEMERAL if marked else {})
    return encode(fields)[:-1] + b',"messages":['


def write_body(
    builder: RequestBuilder, parts: list[RenderedTurn[OpenMessageBlocks]], thread: Mapping[str, str] | None = None
) -> Rendered | Problem:
    """Write a body with a whole history, which begins a `thread` of the upstream if there is one."""
    if builder.problem is not None:
        return builder.problem
    state, marked = parts[-1].state, builder.is_wanted("cache_control")
    if not state.open.begun:  # this API takes no request without messages
        state = msgspec.structs.replace(state, open=OpenMessageBlocks(others=(_SILENCE,)))
    closed = _marked(parts) if marked else [part.closed for part in parts if part.closed]
    head = write_head(builder, thread, marked=marked)
    pieces = [head, *closed, b"".join(state.open.messages(marked=marked and thread is None))]
    return Rendered(close_list(pieces, b"]}"), warnings_of(builder, state), frozenset(builder.own_fields))


def warnings_of(builder: RequestBuilder, state: RenderState[OpenMessageBlocks]) -> tuple[str, ...]:
    """Return what was left out of a request, each sentence once."""
    lost = (loss for loss in state.open.losses if loss not in state.warnings)
    return (*builder.warnings, *state.warnings, *lost)


def _marked(parts: list[RenderedTurn[OpenMessageBlocks]]) -> list[bytes]:
    """Return the closed messages, with a mark at the end of the user's last one."""
    pieces = [part.closed for part in parts]
    for index in range(len(parts) - 1, -1, -1):
        mark = parts[index].mark
        if mark >= 0:
            closed = pieces[index]
            pieces[index : index + 1] = [closed[:mark], _MARK, closed[mark:]]
            break
    return [piece for piece in pieces if piece]


#: What becomes of the items and parts of a history, for the documentation. `MessagesRenderer` does it.
MESSAGES_ITEMS: Mapping[str, Rule] = {
    "message (user)": Rule("translated", "Blocks of a `user` message."),
    "message (system, developer)": Rule(
        "translated", "Part of `system` where nothing is before it, else a text of the user's between `<system>` tags."
    ),
    "message (assistant)": Rule(
        "translated",
        "`text` blocks of the `assistant` message; a refusal becomes text. "
        "A note of the user's stands before the first message if it is one of these.",
    ),
    "phase of a message": Rule("dropped", "This API has none."),
    "annotations of a text": Rule("dropped", "This API has none."),
    "id and status of an item, logprobs of a text": Rule("ours", "They are about the item and not for the model."),
    "function_call": Rule(
        "translated",
        "A `tool_use` block. Another id replaces one that an earlier call has; another id or name replaces one that "
        "this API would refuse; an object holds arguments that are no JSON object.",
    ),
    "custom_tool_call": Rule("translated", "A `tool_use` block with the argument `input`."),
    "function_call_output, custom_tool_call_output": Rule(
        "translated",
        "A `tool_result` block, images included; blocks of the user's, if it comes after the model spoke again. A call "
        "without one gets a note.",
    ),
    "reasoning of this upstream": Rule("carried", "A `thinking` block with its signature, or `redacted_thinking`."),
    "reasoning of another provider": Rule("dropped", "Only its own provider can use it."),
    "…_call, …_call_output of another kind": Rule("translated", "A tool named after the type, and its result."),
    "compaction of this gateway": Rule("translated", "The summary, as a message of the user's."),
    "compaction of another": Rule("refused", "It stands for a history that only its maker can read."),
    "additional_tools, configuration_update": Rule("translated", "Tools and settings of each request behind them."),
    "other fields of items and parts": Rule("dropped", "This API has nothing like them."),
    "other items": Rule("dropped", "This API has nothing like them."),
    "input_text, output_text": Rule("carried", "As `text`, but not blank ones: this API refuses them."),
    "input_image with image_url": Rule("carried", "As `image`, from its data or its URL, without `detail`."),
    "input_image with file_id": Rule("dropped", "Files belong to one provider; a note stands in its place."),
    "input_file with file_data": Rule("translated", "A PDF or plain text as `document`; else dropped, with a note."),
    "input_file with file_id": Rule("dropped", "Files belong to one provider; a note stands in its place."),
    "input_file with file_url": Rule("translated", "As `document` from a URL, which this API takes to be a PDF."),
    "input_audio": Rule("dropped", "This API hears nothing; a note stands in its place."),
    "other parts": Rule("dropped", "Their text is sent, if they have one; else a note stands in their place."),
}


class OpenMessageBlocks(msgspec.Struct, frozen=True):
    """The message that may still grow: blocks of the model's (`said`), or `results` and `others` of the user's.

    `thoughts` wait for the next block of the model's, since a message must not end in thinking; `effort` is what was
    asked for when the last of them was made. The calls with the ids in `waiting` have no result yet. `begun` is true
    once there is any message; `loop` is how the model thought in what it said last.
    """

    thoughts: tuple[bytes, ...] = ()
    said: tuple[bytes, ...] = ()
    results: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()
    waiting: tuple[str, ...] = ()
    begun: bool = False
    effort: str | None = None
    loop: ToolLoop = ToolLoop()

    @property
    def size_bytes(self) -> int:
        """Roughly what it holds in memory."""
        return sum(map(len, (*self.thoughts, *self.said, *self.results, *self.others)))

    @property
    def present_loop(self) -> ToolLoop:
        """The tool loop that the model goes on with; a user's message without results ends the last one."""
        return self.loop if self.said or self.results or self.waiting else ToolLoop()

    @property
    def losses(self) -> Iterable[str]:
        """The warnings about what the messages leave out, or add, if nothing more comes."""
        if self.thoughts:
            yield FOREIGN_REASONING
        if self.waiting and (self.results or self.others):
            yield UNANSWERED_CALL

    def messages(self, *, marked: bool = False) -> list[bytes]:
        """Write the message as it is now, with a comma after it; `marked` puts a mark at the end of a user's."""
        if self.said:
            return [b'{"role":"assistant","content":[', b",".join(self.said), b"]},"]
        if not self.results and not self.others:
            return []
        missing = (_result(call_id, [_NO_RESULT]) for call_id in self.waiting)
        blocks = (*self.results, *missing, *self.others)
        written = b'{"role":"user","content":[' + b",".join(blocks)
        return [written[:-1], _MARK if marked else b"", MESSAGE_END]


class MessagesRenderer(ItemRenderer[OpenMessageBlocks]):
    """Writes items as messages."""

    def __init__(
        self, state: RenderState[OpenMessageBlocks], provider: str, profile: ProviderProfile, *, bare: bool = False
    ) -> None:
        super().__init__(state, provider, MESSAGES_CALL_IDS)
        run = state.open
        self._images = _IMAGES if profile.image_types is None else frozenset(profile.image_types)
        self._bare = bare
        self._size = 0
        self._mark = -1
        self._thoughts = list(run.thoughts)
        self._said, self._results, self._others = list(run.said), list(run.results), list(run.others)
        self._waiting = dict.fromkeys(run.waiting)
        self._begun = run.begun
        self._effort = run.effort
        self._loop = run.loop

    def finish(self) -> RenderedTurn[OpenMessageBlocks]:
        """Return what was closed, and the message that is open."""
        run = self._open()
        return RenderedTurn(b"".join(self._closed), self._state.build(run), self._mark)

    def _open(self) -> OpenMessageBlocks:
        return OpenMessageBlocks(
            tuple(self._thoughts),
            tuple(self._said),
            tuple(self._results),
            tuple(self._others),
            tuple(self._waiting),
            self._begun,
            self._effort,
            self._loop,
        )

    def _say(self, *blocks: bytes) -> None:
        if not blocks:
            return
        if not self._begun:  # this API wants the first message to be the user's
            self._others.append(_START)
        self._begun = True
        if self._results or self._others:
            self._loop = self._open().present_loop
            self._close()
            self._mark = self._size - len(MESSAGE_END)
        self._loop = self._loop.continued(thoughts=bool(self._thoughts), effort=self._effort)
        self._said += (*self._thoughts, *blocks)
        self._thoughts.clear()

    def _answer(self, place: list[bytes], blocks: list[bytes]) -> None:
        if not blocks:
            return
        self._begun = True
        if self._thoughts:
            self._thoughts.clear()
            self._state.warn(FOREIGN_REASONING)
        if self._said:
            self._close()
        place += blocks

    def _close(self) -> None:
        run = self._open()
        pieces = run.messages()
        if self._results or self._others:
            if self._waiting:
                self._state.warn(UNANSWERED_CALL)
            self._waiting.clear()
        self._closed += pieces
        self._size += sum(map(len, pieces))
        for blocks in (self._said, self._results, self._others):
            blocks.clear()

    def _add_message(self, message: MessageItem) -> None:
        if message.role == "assistant":
            self._say(*_texts(map(self._text, message.parts())))
        elif message.role == "user":
            self._answer(self._others, self._blocks(message.parts()))
        else:
            self._add_system("".join(map(self._text, message.parts())))

    def _add_system(self, text: str) -> None:
        if not self._begun:
            self._state.preamble = (*self._state.preamble, text)
        elif text.strip():
            self._answer(self._others, _texts([system_note(text)]))

    def _blocks(self, parts: list[ContentPart]) -> list[bytes]:
        blocks = (self._block(part) for part in parts)
        return [encode(block) for block in blocks if block is not None]

    def _block(self, part: ContentPart) -> dict[str, Any] | None:
        """Return the block of a part; None for a blank text."""
        block: dict[str, Any] | None = None
        if part.type == "input_image" and part.image_url is not None:
            block = _image(part.image_url, self._images)
            if part.detail not in (None, "auto"):
                self._state.warn(DETAIL_LEFT_OUT)
        elif part.type == "input_file":
            block = _document(part)
        if block is not None:
            return block
        text = self._text(part)
        return {"type": "text", "text": text} if text.strip() else None

    def _add_call(self, call: FunctionCallItem) -> None:
        call_id = self._call_id(call)
        arguments = self._arguments(call).encode("utf-8", "replace")
        name = wire_name(call.name, NAME_LENGTH)
        self._say(encode({"type": "tool_use", "id": call_id, "name": name, "input": msgspec.Raw(arguments)}))
        self._waiting[call_id] = None

    def _add_output(self, output: ToolOutputItem) -> None:
        call_id = self._output_id(output)
        blocks = self._blocks(output.parts())
        if call_id in self._waiting:
            self._answer(self._results, [_result(call_id, blocks)])
            del self._waiting[call_id]
        else:
            self._state.warn(LATE_OUTPUT)
            self._answer(self._others, [*_texts([late_output_note(call_id)]), *blocks])

    def _add_reasoning(self, reasoning: ReasoningItem) -> None:
        content = self._unseal(reasoning)
        thought = None if content is None else self._read_sealed(content, _thoughts)
        if thought is None:
            return
        if self._bare:
            self._state.warn(THOUGHTS_LEFT_OUT)
            return
        self._effort = thought.effort
        if thought.redacted is not None:
            self._thoughts.append(encode({"type": "redacted_thinking", "data": thought.redacted}))
        else:
            block = {"type": "thinking", "thinking": reasoning.text, "signature": thought.signature}
            self._thoughts.append(encode(block))


def _result(call_id: str, blocks: list[bytes]) -> bytes:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id}
    if blocks:
        result["content"] = [msgspec.Raw(block) for block in blocks]
    return encode(result)


def _texts(texts: Any) -> list[bytes]:  # noqa: ANN401 - any iterable of texts
    return [encode({"type": "text", "text": text}) for text in texts if text.strip()]


def _image(url: str, types: frozenset[str]) -> dict[str, Any] | None:
    if url.lstrip()[:5].lower() != "data:":
        return {"type": "image", "source": {"type": "url", "url": url}}
    data = data_url(url)
    if data is None or data.media not in types:
        return None
    return {"type": "image", "source": {"type": "base64", "media_type": data.media, "data": data.data}}


def _document(part: ContentPart) -> dict[str, Any] | None:
    source: dict[str, Any] | None = None
    if part.file_data is not None:
        source = _source(part.file_data, part.filename or "")
    elif part.file_url is not None:
        source = {"type": "url", "url": part.file_url}
    if source is None:
        return None
    title = {"title": part.filename} if part.filename else {}
    return {"type": "document", "source": source} | title


def _source(file_data: str, filename: str) -> dict[str, Any] | None:
    data = data_url(file_data)
    media, content = ("", file_data) if data is None else (data.media, data.data)
    if media == "application/pdf" or (not media and filename.lower().endswith(".pdf")):
        return {"type": "base64", "media_type": "application/pdf", "data": content}
    if not media.startswith("text/"):
        return None
    try:
        text = b64decode(content, validate=True).decode()
    except (Base64Error, UnicodeError, ValueError):
        return None
    return {"type": "text", "media_type": "text/plain", "data": text}
