"""The request: what a client may ask for in `POST /v1/responses` and in a `response.create` message.

`parse_create` does all validation that needs no state: it returns a `Create` or the `Problem` to answer with. It parses
only the new items. It accepts unknown top-level fields and keeps them as they are, since clients send fields of their
own and the API gets new ones. Not here: the history, the models on offer and the state of the transport, which the
executor checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from segue.protocol.codec import (
    UNREADABLE,
    decode,
    decode_value,
    encode,
    encode_exactly,
    is_long_text,
    is_utf8,
    keep_text,
    not_unicode,
    size_of,
    unknown_fields,
    without_lone_surrogates,
)
from segue.protocol.compaction_field import CompactionRequest, compaction_of, read_context_management
from segue.protocol.conversation_field import conversation_of, refuse_conversation
from segue.protocol.ids import ConversationId
from segue.protocol.items import Input, parse_input
from segue.protocol.lanes import DEFAULT_LANE, read_stream_id
from segue.protocol.object_text import ObjectText
from segue.protocol.problems import (
    Problem,
    missing,
    thread_unsupported,
    unknown_type,
    unsupported,
)
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits, refuse_size

#: Value of `include`: return reasoning that only its provider can read, for a client that sends it back later.
ENCRYPTED_REASONING = "reasoning.encrypted_content"
#: Value of `include`: return the log probability of each token of the text.
OUTPUT_LOGPROBS = "message.output_text.logprobs"

Transport = Literal["http", "websocket"]
#: Whether a stream is lean, and `"compact"` if its events are arrays.
LeanForm = bool | Literal["compact"]
#: How much of a turn its stream says: all of it, or what its client does not know; the latter as objects or as arrays.
StreamForm = Literal["whole", "lean", "compact"]

#: Each tool is written into the response, and for the provider. No model takes a tenth of these.
MOST_TOOLS = 2000

_NULL = Raw(b"null")
_CREATE = Raw(b'"response.create"')

Count = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class _AllowedTool(msgspec.Struct):
    type: str
    name: str | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    tools: list[_AllowedTool] | None = None


class _TextFormat(msgspec.Struct):
    type: str = "text"
    name: str | None = None
    description: str | None = None
    schema: dict[str, Raw] | None = None
    strict: bool | None = None


class _TextOptions(msgspec.Struct):
    format: _TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _ReasoningOptions(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class _SegueOptions(msgspec.Struct):
    """Options that only this product has, under its own name, so that they cannot collide with the API's."""

    resume: bool | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    lean: LeanForm | None = None
    epoch: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class _CacheOptions(msgspec.Struct):
    prewarm: bool | None = None


class _StreamOptions(msgspec.Struct):
    include_obfuscation: bool | None = None


class _ToolDefinition(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class _CreateBody(msgspec.Struct, kw_only=True):
    """The fields that we act on or echo, with the types of the wire; `null` means absent."""

    type: Raw = _NULL
    model: str | None = None
    input: Raw = _NULL
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: Raw = _NULL
    background: bool | None = None
    generate: bool | None = None
    prompt_cache_options: Raw = _NULL
    context_management: Raw = _NULL
    segue: _SegueOptions | None = None
    stream_id: Raw = _NULL
    conversation: Raw = _NULL
    prompt: Raw = _NULL
    thread: Raw = _NULL
    instructions: Raw = _NULL
    tools: Raw = _NULL
    tool_choice: Raw = _NULL
    text: Raw = _NULL
    reasoning: Raw = _NULL
    metadata: Metadata | None = None
    include: list[str] | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class _KnownCreateBody(_CreateBody, kw_only=True, forbid_unknown_fields=True):
    """A request without unknown fields."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a turn. Each request brings its own; nothing is inherited from the parent response.

    `instructions` are the JSON string as it came: it may be as large as a request, and as a text several times that.
    `extra` holds all other fields as they came; what becomes of them is up to the upstream.
    """

    model: str
    instructions: Raw | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    text: dict[str, Any] = {}
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, str] = {}
    include: tuple[str, ...] = ()
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    truncation: str = "disabled"
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    extra: dict[str, Raw] = {}

    @property
    def instructions_text(self) -> str:
        """The instructions, empty if there are none: made anew each time, since few need them, once in a turn."""
        return "" if self.instructions is None else _texts.decode(self.instructions)


class NativeBody(msgspec.Struct, frozen=True, kw_only=True):
    """A request in the words of another API, for an upstream that speaks that API (`dialect`) and gets it unchanged.

    `fields` stand in the place of the client's, or beside them. `headers` are header lines of the client that belong to
    it. `opening` is a digest of what comes before the model's first message, and `replayed` is true if there is such a
    message: they tell conversations apart. In a thread, `messages` are the new ones, with a comma between two.
    """

    dialect: str
    body: ObjectText
    fields: Mapping[str, bytes] = {}
    headers: tuple[tuple[str, str], ...] = ()
    opening: bytes = b""
    replayed: bool = False
    messages: bytes = b""


class ThreadContext(msgspec.Struct, frozen=True):
    """What a message thread keeps beside its messages, in the JSON of its client; `null` for what it did not have."""

    system: Raw = _NULL
    tools: Raw = _NULL

    @property
    def size_bytes(self) -> int:
        """Roughly what it holds in memory."""
        return len(bytes(self.system)) + len(bytes(self.tools))


class Create(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """One request to make a response, checked as far as possible without state.

    `size_bytes` is the length of its message, for bounding queues. A `resumable` turn outlives its client's connection
    for a while; so does one with an `idempotency_key`, since the client may send it again. A `background` turn runs to
    its end. With an `epoch`, it is for that run of the gateway only. `form` says what its stream leaves out. With
    `native`, the upstream must speak that API; if nothing will continue the turn, its input need not be read at all.
    A client of another API, which keeps its own history, gets `encrypted` reasoning where there is any. Its upstream is
    not asked for it by an `include` of the settings, which it might refuse.
    With `thread`, the response is a message of a thread, and that is kept with it. With `compaction`, the history may
    become a summary before the turn.
    """

    settings: Settings
    input: Input = Input()
    previous_response_id: str | None = None
    conversation: ConversationId | None = None
    store: bool = True
    stream: bool = False
    generate: bool = True
    background: bool = False
    resumable: bool = False
    idempotency_key: str | None = None
    epoch: str | None = None
    form: StreamForm = "whole"
    native: NativeBody | None = None
    encrypted: bool = False
    thread: ThreadContext | None = None
    compaction: CompactionRequest | None = None
    size_bytes: int = 0

    @property
    def shows_encrypted(self) -> bool:
        """Whether the client gets the encrypted content of reasoning."""
        return self.encrypted or ENCRYPTED_REASONING in self.settings.include

    @property
    def kept(self) -> bool:
        """True if the turn runs independently of the client that asked for it, and its events are kept."""
        return self.background or self.resumable or self.idempotency_key is not None

    def digest(self) -> bytes:
        """Return a digest that is equal for two requests that ask for the same response."""
        named = (self.previous_response_id, self.conversation)
        whole = (self.settings, *named, self.store, self.generate, self.background, self.compaction)
        return hashlib.sha256(b"\0".join((encode(whole), *self.input.items))).digest()


class Steer(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """A `response.steer`: input for a running response. It names no lane, since the response decides that."""

    previous_response_id: str
    input: Raw = _NULL


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """A `segue.resume`: send this response's events after a number, and then those that are still to come.

    They come in the `form` that it says, however the response was asked for.
    """

    response_id: str
    starting_after: Annotated[int, Meta(ge=-1)] | None = None
    lean: LeanForm | None = None

    @property
    def form(self) -> StreamForm:
        """What the stream leaves out."""
        return _form(self.lean)


class Stop(msgspec.Struct, frozen=True):
    """A `segue.cancel`: stop the turn that runs in a lane, or else the one that waits there first."""


class ClientMessage(msgspec.Struct, frozen=True):
    """One client message of WebSocket mode: its request, or the problem with it, and its lane."""

    request: Create | Resume | Steer | Stop | Problem
    lane: str = DEFAULT_LANE


class _ClientMessageHead(msgspec.Struct):
    type: str | None = None
    stream_id: Raw = _NULL


_heads = msgspec.json.Decoder(_ClientMessageHead)
_bodies = msgspec.json.Decoder(_CreateBody)
_known_bodies = msgspec.json.Decoder(_KnownCreateBody)
_objects = msgspec.json.Decoder(dict[str, Raw])
_steers = msgspec.json.Decoder(Steer)
_resumes = msgspec.json.Decoder(Resume)
_cache_options = msgspec.json.Decoder(_CacheOptions)
_texts = msgspec.json.Decoder(str)
_optional_texts = msgspec.json.Decoder(str | None)

#: The known parts of fields that are kept as whole values, which may hold more than we know.
_SHAPES: dict[str, msgspec.json.Decoder[Any]] = {
    "tools": msgspec.json.Decoder(list[_ToolDefinition]),
    "tool_choice": msgspec.json.Decoder(Literal["none", "auto", "required"] | _ToolChoice),
    "text": msgspec.json.Decoder(_TextOptions),
    "reasoning": msgspec.json.Decoder(_ReasoningOptions),
    "stream_options": msgspec.json.Decoder(_StreamOptions),
    "prompt_cache_options": _cache_options,
}
#: Those of them that `Settings.extra` keeps, beside the unknown fields.
_OPTIONS = ("stream_options", "prompt_cache_options")


def json_text(text: str) -> Raw:
    """Write a text as a JSON string, as `Settings.instructions` wants it."""
    return Raw(encode_exactly(text))


def refuse_text(raw: Raw, where: str) -> Problem | None:
    """Refuse what is neither a text nor null.

    That it is a JSON value was seen when it was skipped; a long text is not made of it.
    """
    if raw == _NULL:
        return None
    if is_long_text(raw):
        return None if is_utf8(memoryview(raw)) else not_unicode()
    text = decode(raw, _optional_texts, where)
    return text if isinstance(text, Problem) else None


def parse_message(data: bytes | str, limits: RequestLimits = DEFAULT_LIMITS) -> ClientMessage:
    """Read one client message of WebSocket mode: its `type` first, then the lane, then the rest.

    A problem belongs to the default lane if the message has no lane, or an invalid name.
    """
    too_large = refuse_size(data, limits)
    if too_large is not None:
        return ClientMessage(too_large)
    known = _read_known(data)  # nearly always it is a create without other fields: one pass is enough
    if known is None or known.type != _CREATE:
        return _parse_by_head(data, limits)
    lane = read_stream_id(known.stream_id)
    if not isinstance(lane, str):
        return ClientMessage(lane)
    return ClientMessage(_create_of(known, data, "websocket", limits), lane)


def _parse_by_head(data: bytes | str, limits: RequestLimits) -> ClientMessage:
    head = decode(data, _heads)
    if isinstance(head, Problem):
        repaired = without_lone_surrogates(data)
        return ClientMessage(head) if repaired is None else parse_message(repaired, limits)
    match head.type:
        case None:
            return ClientMessage(missing("type"))
        case "response.steer":
            steer = decode(data, _steers)
            return ClientMessage(steer)
        case "response.create" | "segue.resume" | "segue.cancel":
            return _parse_for_lane(data, head, limits)
        case _:
            return ClientMessage(unknown_type(head.type))


def _parse_for_lane(data: bytes | str, head: _ClientMessageHead, limits: RequestLimits) -> ClientMessage:
    lane = read_stream_id(head.stream_id)
    if isinstance(lane, Problem):
        return ClientMessage(lane)
    if head.type == "response.create":
        return ClientMessage(_parse_create(data, "websocket", limits), lane)
    if head.type == "segue.cancel":
        return ClientMessage(Stop(), lane)
    resume = decode(data, _resumes)
    return ClientMessage(resume, lane)


def parse_create(data: bytes | str, transport: Transport, limits: RequestLimits = DEFAULT_LIMITS) -> Create | Problem:
    """Read the body of a create. `data` is one JSON object; the shell has checked its length.

    Half a character becomes U+FFFD. An agent that cuts a tool's output in the middle of one would send it again and
    again, and could do nothing about a refusal.
    """
    return refuse_size(data, limits) or _parse_create(data, transport, limits)


def _parse_create(data: bytes | str, transport: Transport, limits: RequestLimits) -> Create | Problem:
    body = _read(data)
    if isinstance(body, Problem):
        repaired = without_lone_surrogates(data)
        return body if repaired is None else _parse_create(repaired, transport, limits)
    return _create_of(body, data, transport, limits)


def _create_of(body: _CreateBody, data: bytes | str, transport: Transport, limits: RequestLimits) -> Create | Problem:
    """Return what the fields of a create ask for."""
    problem = _refuse(body, transport)
    if problem is not None:
        return problem
    settings = _settings(body, data)
    if not isinstance(settings, Settings):
        return settings
    parsed = Input() if body.input == _NULL else parse_input(body.input, limits)
    if not isinstance(parsed, Input):
        return parsed
    conversation = None if body.conversation == _NULL else conversation_of(body.conversation)
    generate = body.generate is not False and (body.prompt_cache_options == _NULL or not _asks_to_prewarm(body))
    if not parsed.items and body.previous_response_id is None and conversation is None and generate:
        return missing("input")
    extras, compacts = body.segue or _SegueOptions(), parsed.triggers or body.context_management != _NULL
    return Create(
        settings=settings,
        input=parsed,
        previous_response_id=body.previous_response_id,
        conversation=conversation,
        store=body.store is not False,
        stream=bool(body.stream),
        generate=generate,
        background=bool(body.background),
        resumable=bool(extras.resume),
        idempotency_key=extras.idempotency_key,
        epoch=extras.epoch,
        form=_form(extras.lean),
        compaction=compaction_of(body.context_management, parsed) if compacts else None,
        size_bytes=size_of(data),
    )


def _form(lean: LeanForm | None) -> StreamForm:
    return lean if lean == "compact" else "lean" if lean else "whole"


def _refuse(body: _CreateBody, transport: Transport) -> Problem | None:
    if body.prompt != _NULL:
        return unsupported("prompt", "stored prompts do not exist here; send instructions and input")
    if body.thread != _NULL:  # of the Messages API: its history would be lost
        return thread_unsupported("this API has 'previous_response_id' for that")
    if transport == "http" and body.stream_id != _NULL:
        return unsupported("stream_id", "lanes are for WebSocket mode; each HTTP request is on its own anyway")
    problem = _refuse_background(body, transport) if body.background else None
    if problem is None and body.conversation != _NULL:
        problem = refuse_conversation(body.conversation, body.previous_response_id, store=body.store is not False)
    return problem or (None if body.model else missing("model"))


def _refuse_background(body: _CreateBody, transport: Transport) -> Problem | None:
    if transport == "websocket":
        return unsupported("background", "a WebSocket response is never a background one; leave it out")
    if body.store is False:
        return unsupported(
            "background", "a background response is stored, so that it can be asked for; leave store out"
        )
    return None


def _read(data: bytes | str) -> _CreateBody | Problem:
    """Read the fields that we know. Nearly always there are no others, and one pass over the body is enough."""
    known = _read_known(data)
    if known is not None:
        return known
    body = decode(data, _bodies)
    return body if isinstance(body, Problem) else refuse_text(body.instructions, "instructions") or body


def _read_known(data: bytes | str) -> _KnownCreateBody | None:
    """Read a body that has no other fields than those that we know; None if it has, or if something is wrong."""
    try:
        body = _known_bodies.decode(data)
    except UNREADABLE:
        return None
    return None if refuse_text(body.instructions, "instructions") else body


def _asks_to_prewarm(body: _CreateBody) -> bool:
    """Return whether the cache options, which were checked, ask for a turn without output."""
    return bool(_cache_options.decode(body.prompt_cache_options).prewarm)


def _extra(body: _CreateBody, data: bytes | str, values: dict[str, Any]) -> dict[str, Raw] | Problem:
    """Return the fields to keep as they came: options (taken out of `values`) and unknown fields."""
    extra: dict[str, Raw] = {}
    if body.context_management != _NULL:
        managed = read_context_management(body.context_management)
        if isinstance(managed, Problem):
            return managed
        extra["context_management"] = managed
    for name in _OPTIONS:
        if name in values:
            given = values.pop(name).items()
            options = {key: value for key, value in given if key != "prewarm" and value is not None}
            if options:
                extra[name] = Raw(encode(options))
    if isinstance(body, _KnownCreateBody):
        return extra
    unknown = unknown_fields(data, _CreateBody.__struct_fields__)
    return unknown if isinstance(unknown, Problem) else extra | unknown


def _settings(body: _CreateBody, data: bytes | str) -> Settings | Problem:
    fields = msgspec.structs.asdict(body)
    values: dict[str, Any] = {name: fields[name] for name in _PLAIN if fields[name] is not None}
    for name in _SHAPES:
        raw = fields[name]
        if raw == _NULL:
            continue
        value = _shaped(raw, name)
        if isinstance(value, Problem):
            return value
        values[name] = value
    values["include"] = tuple(body.include or ())
    values["instructions"] = None if body.instructions == _NULL else keep_text(body.instructions)
    extra = _extra(body, data, values)
    if not isinstance(extra, dict):
        return extra
    return Settings(**values, extra=extra)


def _shaped(raw: Raw, name: str) -> Any | Problem:  # noqa: ANN401 - a JSON value of the field's shape
    """Check the known parts of a field, and return its whole value."""
    known = decode(raw, _SHAPES[name], name)
    if isinstance(known, Problem):
        return known
    return _find_gap(known) or decode_value(raw, name)


def _find_gap(known: object) -> Problem | None:
    """Find a missing field of a tool, a choice or a format of a known type; the upstream judges other types."""
    if isinstance(known, list):
        return too_many_tools(len(known)) if len(known) > MOST_TOOLS else _find_nameless(known, "tools")
    if isinstance(known, _ToolChoice):
        return _find_gap_of_choice(known)
    if isinstance(known, _TextOptions) and known.format is not None and known.format.type == "json_schema":
        if not known.format.name:
            return missing("text.format.name")
        if known.format.schema is None:
            return missing("text.format.schema")
    return None


def too_many_tools(count: int) -> Problem:
    """A request has more tools than any model takes."""
    return Problem("invalid_value", f"'tools' has {count} tools; a request may have {MOST_TOOLS}.", "tools")


def _find_gap_of_choice(choice: _ToolChoice) -> Problem | None:
    if choice.type in NAMED_TOOLS and not choice.name:
        return missing("tool_choice.name")  # Chat Completions has it in an object `function`
    if choice.type == "allowed_tools":
        return (
            missing("tool_choice.tools") if choice.tools is None else _find_nameless(choice.tools, "tool_choice.tools")
        )
    return None


def _find_nameless(tools: Sequence[_ToolDefinition | _AllowedTool], where: str) -> Problem | None:
    for index, tool in enumerate(tools):
        if tool.type in NAMED_TOOLS and not tool.name:
            return missing(f"{where}[{index}].name")
    return None


#: The types of tools that are called by a name that the client gave them.
NAMED_TOOLS = frozenset({"function", "custom"})

_PLAIN = tuple(
    name for name in Settings.__struct_fields__ if name not in {*_SHAPES, "include", "instructions", "extra"}
)
