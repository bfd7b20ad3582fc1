"""The response object, with every key that the Open Responses schema requires.

It has two halves. The head (`ResponseObjectHead`) changes during a turn: status, usage and so on. The echo of the
request's settings does not change, so it is encoded once per turn. The finished object is made of their bytes;
neither the settings nor the output items are encoded again. Not here: the events that carry the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from segue.protocol.codec import Pieces, decode, decode_value, encode, encode_exactly, is_long_text, join_long
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.items import Item
from segue.protocol.problems import Problem, missing
from segue.protocol.requests import Settings, ThreadContext, refuse_text

Status = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
#: Statuses after which nothing of a response changes any more.
TerminalStatus = Literal["completed", "incomplete", "failed", "cancelled"]


_INSTRUCTIONS, _NULL = b'"instructions":', msgspec.Raw(b"null")


class _CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class _ReasoningTokens(msgspec.Struct, frozen=True):
    reasoning_tokens: int = 0


class Usage(msgspec.Struct, frozen=True):
    """The tokens of one turn as the upstream counted them. The whole history counts as input in every turn."""

    input_tokens: int
    input_tokens_details: _CachedTokens
    output_tokens: int
    output_tokens_details: _ReasoningTokens
    total_tokens: int


def usage(input_tokens: int, output_tokens: int, *, cached: int = 0, reasoning: int = 0, written: int = 0) -> Usage:
    """Return the usage of a turn.

    Of the input tokens, `cached` were not processed again, and `written` went into a cache that counts them
    (Anthropic's). Of the output tokens, `reasoning` are not text.
    """
    total = input_tokens + output_tokens
    return Usage(input_tokens, _CachedTokens(cached, written), output_tokens, _ReasoningTokens(reasoning), total)


def add_usage(one: Usage, other: Usage | None) -> Usage:
    """Return what two requests have used together."""
    if other is None:
        return one
    return usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        cached=one.input_tokens_details.cached_tokens + other.input_tokens_details.cached_tokens,
        reasoning=one.output_tokens_details.reasoning_tokens + other.output_tokens_details.reasoning_tokens,
        written=one.input_tokens_details.cache_write_tokens + other.input_tokens_details.cache_write_tokens,
    )


class Failure(msgspec.Struct, frozen=True):
    """`response.error`: why a turn failed after it had begun."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """`response.incomplete_details`: why the turn stopped early."""

    reason: str


class ConversationReference(msgspec.Struct, frozen=True):
    """`response.conversation`: the conversation that a response belongs to."""

    id: ConversationId


class ResponseObjectHead(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a response object that belongs to the turn rather than to its request. Times are unix seconds.

    `conversation` is there only in a conversation. `warnings` is an extra key of ours; it is there only if a dialect
    left something out.
    """

    id: ResponseId
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: Status = "in_progress"
    error: Failure | None = None
    incomplete_details: IncompleteDetails | None = None
    previous_response_id: ResponseId | None = None
    conversation: ConversationReference | msgspec.UnsetType = msgspec.UNSET
    usage: Usage | None = None
    warnings: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class _SettingsEcho(msgspec.Struct, frozen=True, kw_only=True):
    """The settings as the schema wants them echoed: every field is there, with its default if need be."""

    model: str
    instructions: msgspec.Raw
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    truncation: str
    parallel_tool_calls: bool
    text: dict[str, Any]
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: dict[str, Any] | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None


def encode_echo(
    settings: Settings, *, store: bool, background: bool = False, thread: ThreadContext | None = None
) -> bytes:
    """Return the echo of the request's settings as a JSON object. Costs O(settings), once per turn.

    The instructions are put in as they came: nothing reads them here, however long they are. The context of a message
    thread is an extra key of ours, so that a thread can be continued from its record.
    """
    tier = settings.service_tier
    encoded = encode_exactly(
        _SettingsEcho(
            model=settings.model,
            instructions=_NULL,
            tools=list(map(_echo_tool, settings.tools)),
            tool_choice=settings.tool_choice,
            truncation=settings.truncation,
            parallel_tool_calls=settings.parallel_tool_calls,
            text=_echo_text(settings.text),
            top_p=1.0 if settings.top_p is None else settings.top_p,
            presence_penalty=settings.presence_penalty,
            frequency_penalty=settings.frequency_penalty,
            top_logprobs=settings.top_logprobs,
            temperature=1.0 if settings.temperature is None else settings.temperature,
            reasoning=_echo_reasoning(settings.reasoning),
            max_output_tokens=settings.max_output_tokens,
            max_tool_calls=settings.max_tool_calls,
            store=store,
            background=background,
            service_tier="default" if tier in {None, "auto"} else str(tier),
            metadata=settings.metadata,
            safety_identifier=settings.safety_identifier,
            prompt_cache_key=settings.prompt_cache_key,
        )
    )
    end = b"" if thread is None else b',"thread":%b}' % encode(thread)
    if end:
        encoded = encoded[:-1]
    if settings.instructions is None:
        return encoded + end
    at = encoded.index(_INSTRUCTIONS) + len(_INSTRUCTIONS)  # no string holds it: its quotation marks are escaped
    pieces = encoded[:at], settings.instructions, encoded[at + len(_NULL) :], end
    return join_long(*pieces) if is_long_text(settings.instructions) else b"".join(pieces)


class _ThreadEcho(msgspec.Struct):
    """What of an echo a thread can be continued with; a response of another API has only the first two."""

    instructions: str | None = None
    tools: list[dict[str, Any]] = []
    thread: ThreadContext | None = None


def thread_of(echo: bytes) -> ThreadContext:
    """Return the context that a thread goes on with from the response with this echo."""
    found = _thread_echoes.decode(echo)
    if found.thread is not None:
        return found.thread
    system = msgspec.Raw(encode(found.instructions or None))
    tools = [_thread_tool(tool) for tool in found.tools if tool.get("type") == "function"]
    return ThreadContext(system, msgspec.Raw(encode(tools or None)))


def _thread_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a function as a tool of the Messages API."""
    written = {"name": tool["name"], "input_schema": tool.get("parameters") or {"type": "object", "properties": {}}}
    return written | {name: tool[name] for name in ("description", "strict") if tool.get(name)}


_thread_echoes = msgspec.json.Decoder(_ThreadEcho)
_echoes = msgspec.json.Decoder(_SettingsEcho)


def parse_echo(raw: bytes | msgspec.Raw, where: str) -> bytes | Problem:
    """Read an echo that somebody sent, at `where` in a document. Keys that are not known are kept.

    It is one line, since events are.
    """
    known = decode(raw, _echoes, where)
    if isinstance(known, Problem):
        return known
    problem = _refuse_echo(known, raw, where)
    if problem is not None:
        return problem
    value = decode_value(msgspec.Raw(raw), where)
    if isinstance(value, Problem):
        return value
    foreign = sorted(value.keys() & _OTHER_KEYS)
    if foreign:
        field = f"{where}.{foreign[0]}"
        return Problem("invalid_value", f"Invalid value for '{field}': it is no setting of a request.", field)
    data = bytes(raw).strip()  # as it came, since some settings are sent on as they came
    return encode(value) if b"\n" in data or b"\r" in data else data


def _refuse_echo(known: _SettingsEcho, raw: bytes | msgspec.Raw, where: str) -> Problem | None:
    """Refuse what a turn that continues this one could stumble over."""
    nameless = next((number for number, tool in enumerate(known.tools) if not _has_name(tool)), None)
    if nameless is not None:
        return missing(f"{where}.tools[{nameless}].name")
    problem = refuse_text(known.instructions, f"{where}.instructions")
    thread = decode(raw, _thread_echoes, where)
    return problem or (thread if isinstance(thread, Problem) else None)


def _has_name(tool: dict[str, Any]) -> bool:
    return tool.get("type") != "function" or isinstance(tool.get("name"), str)


def settings_of(echo: bytes) -> Settings:
    """Return the settings of the request whose echo this is, as far as it tells: defaults were not sent."""
    known = _echoes.decode(echo)
    fields = {name: getattr(known, name) for name in _ECHOED}
    fields |= {name: None for name in ("temperature", "top_p") if fields[name] == 1.0}
    form = _sent(known.text.get("format") or {})
    text = {name: value for name, value in known.text.items() if name != "format"}
    return Settings(
        **{
            **fields,
            "instructions": None if known.instructions == _NULL else known.instructions.copy(),
            "service_tier": None if known.service_tier == "default" else known.service_tier,
            "tools": [_sent(tool) for tool in known.tools],
            "text": text if form == {"type": "text"} else {**text, "format": form},
            "reasoning": None if known.reasoning is None else _sent(known.reasoning),
        }
    )


def _sent(fields: dict[str, Any]) -> dict[str, Any]:
    """Take out what an echo adds."""
    return {name: value for name, value in fields.items() if value is not None}


class EncodedResponse(NamedTuple):
    """A response object in two pieces: up to its echo (`encode_start`), and the echo, which others share."""

    start: bytes
    echo: bytes

    @property
    def size_bytes(self) -> int:
        """How many bytes the object has."""
        return len(self.start) + len(self.echo) - 1

    def pieces(self) -> Pieces:
        """Return the JSON object."""
        return self.start, memoryview(self.echo)[1:]

    def whole(self) -> bytes:
        """Return the JSON object in one piece."""
        return b"".join(self.pieces())


def encode_start(head: ResponseObjectHead, output: Sequence[Item]) -> bytes:
    """Join the start of a response object from its head and its finished items; its echo, without a brace, follows."""
    return b"".join((encode(head)[:-1], b',"output":[', b",".join(output), b"],"))


def _echo_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return tool
    # The schema wants these keys even where the request left them out.
    return {"description": None, "parameters": None, "strict": None, **tool}


def _echo_text(text: dict[str, Any]) -> dict[str, Any]:
    if not text:
        return {"format": {"type": "text"}}
    kept = {name: value for name, value in text.items() if value is not None}  # optional enums refuse null
    form = {"type": "text", **(kept.get("format") or {})}
    if form.get("type") == "json_schema":
        form = {"description": None, "strict": False, **{k: v for k, v in form.items() if v is not None}}
    return {**kept, "format": form}


def _echo_reasoning(reasoning: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if reasoning is None else {"effort": None, "summary": None, **reasoning}


#: The settings that an echo has as they were sent, or with their defaults.
_ECHOED = tuple(name for name in _SettingsEcho.__struct_fields__ if name in Settings.__struct_fields__)
#: The keys of a response object that are not of its echo.
_OTHER_KEYS = frozenset({*ResponseObjectHead.__struct_fields__, "output"})
