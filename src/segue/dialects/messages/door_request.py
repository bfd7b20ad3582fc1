"""The door of the Messages API: reading a request. Its blocks become items in `door_items`.

Where the model's upstream speaks this API too, the body passes through, and only what the gateway acts on is read.
Everywhere else each field has a counterpart in a `Create`, or does not change the answer, or is refused. Not here: the
reply (`door_reply`), and what a thread is (`threads`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from segue.dialects.doors import Speaks
from segue.dialects.messages.door_items import is_from_model, read_messages, system_text
from segue.dialects.messages.foreign_thoughts import SEALED, without_foreign_thoughts
from segue.dialects.messages.threads import ThreadAsk, given_context, known_context, read_thread
from segue.protocol.codec import decode, encode, without_lone_surrogates
from segue.protocol.items import join
from segue.protocol.object_text import ObjectText, read_object
from segue.protocol.problems import Problem, missing, thread_not_found, unsupported
from segue.protocol.request_size import RequestLimits, refuse_size
from segue.protocol.requests import Count, Create, NativeBody, Settings, ThreadContext, json_text

NAME: Literal["messages"] = "messages"

_NULL = Raw(b"null")
#: The longest `safety_identifier` that providers take (https://platform.openai.com/docs/api-reference/responses).
_MAX_IDENTIFIER = 64


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _OutputFormat(msgspec.Struct):
    type: str
    schema: dict[str, Any] | None = None


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _OutputFormat | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Choice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Tool(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class _TextBlock(msgspec.Struct):
    type: Literal["text"]
    text: str


class _MessagesHead(msgspec.Struct, kw_only=True):
    """What is read of every request."""

    model: str | None = None
    messages: Raw = _NULL
    stream: bool | None = None
    max_tokens: Count | None = None
    thread: Raw = _NULL


class _MessagesBody(_MessagesHead, kw_only=True):
    """What is read of a request that does not pass through."""

    system: Raw = _NULL
    tools: Raw = _NULL
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _OutputFormat | None = None
    metadata: _Metadata | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    service_tier: str | None = None
    mcp_servers: Raw = _NULL
    container: Raw = _NULL


_heads = msgspec.json.Decoder(_MessagesHead)
_bodies = msgspec.json.Decoder(_MessagesBody)
_tools = msgspec.json.Decoder(list[_Tool])
_systems = msgspec.json.Decoder(str | list[_TextBlock] | None)
_lists = msgspec.json.Decoder(list[Raw])

_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS: Mapping[str, str] = {"max": "xhigh"}
#: How hard a model thinks that may think for so many tokens, and more.
_BUDGETS = ((16_384, "high"), (4_097, "medium"), (0, "low"))
#: What a model does that chooses by itself how hard it thinks, if nothing is said.
_ADAPTIVE = "high"
_TIERS: Mapping[str, str] = {"standard_only": "default", "auto": "auto"}


class RequestReading(msgspec.Struct, frozen=True):
    """How a request is read: whether its upstream `speaks` this API, and how much it may hold.

    `counting`: it asks only for the number of its tokens. `held` is the context of the thread that it goes on with.
    """

    speaks: Speaks
    limits: RequestLimits
    counting: bool = False
    held: ThreadContext | None = None


def read_request(data: bytes, reading: RequestReading) -> Create | Problem:
    """Read the body of a request."""
    too_large = refuse_size(data, reading.limits)
    if too_large is not None:
        return too_large
    head = decode(data, _heads)
    if not isinstance(head, Problem):
        return _read(data, head, reading)
    repaired = without_lone_surrogates(data)
    return head if repaired is None else read_request(repaired, reading)


def _read(data: bytes, head: _MessagesHead, reading: RequestReading) -> Create | Problem:
    asked = read_thread(head.thread)
    if isinstance(asked, Problem):
        return asked
    problem = _refuse(head, counting=reading.counting)
    if problem is not None:
        return problem
    assert head.model is not None, "a request without a model is refused"
    native = reading.speaks(head.model)
    if native and asked is None:
        return _read_native(data, head)
    body = decode(data, _bodies)
    if isinstance(body, Problem):
        return body
    if asked is None:
        return _read_body(data, body, reading.limits)
    return _read_threaded(data, body, reading, asked=asked, native=native)


def _refuse(head: _MessagesHead, *, counting: bool) -> Problem | None:
    if not head.model:
        return missing("model")
    if head.messages == _NULL:
        return missing("messages")
    return missing("max_tokens") if head.max_tokens is None and not counting else None


# --- to an upstream of the same API ----------------------------------------------------------------------------------


def _read_native(data: bytes, head: _MessagesHead) -> Create | Problem:
    body = read_object(data)
    if isinstance(body, Problem):
        return body
    messages = decode(head.messages, _lists, "messages")
    if isinstance(messages, Problem):
        return messages
    opening, replayed = _opening(body, messages)
    own = without_foreign_thoughts(messages) if SEALED in data else None
    assert head.model is not None, "a request without a model is refused"
    return Create(
        settings=Settings(model=head.model, max_output_tokens=head.max_tokens),
        store=False,
        stream=bool(head.stream),
        native=NativeBody(
            dialect=NAME,
            body=body,
            fields={} if own is None else {"messages": join(own)},
            opening=opening,
            replayed=replayed,
        ),
        size_bytes=len(data),
    )


def _opening(body: ObjectText, messages: Sequence[Raw]) -> tuple[bytes, bool]:
    """Return a digest of what comes before the model's first message, and whether it has said anything."""
    digest = hashlib.sha256(system_text(body.value("system") or b"null").encode("utf-8", "surrogatepass"))
    for message in messages:
        if is_from_model(message):
            return digest.digest(), True
        digest.update(b"\0" + bytes(message))
    return digest.digest(), False


# --- in a thread -----------------------------------------------------------------------------------------------------


def _read_threaded(
    data: bytes, body: _MessagesBody, reading: RequestReading, *, asked: ThreadAsk, native: bool
) -> Create | Problem:
    """Read a request of a thread: for any upstream, since the thread may go on at another one."""
    previous = asked.previous_message_id
    held = given_context(body.system, body.tools) if previous is None else reading.held
    if held is None:
        return thread_not_found(previous or "")
    known = known_context(held, body.system, body.tools)
    if isinstance(known, Problem):
        return known
    context = known.context
    body = msgspec.structs.replace(body, system=context.system, tools=context.tools)
    create = _read_body(data, body, reading.limits, native=native, goes_on=previous is not None)
    if isinstance(create, Problem):
        return create
    passed = _passed(data, body, known.fields) if native else None
    return passed if isinstance(passed, Problem) else msgspec.structs.replace(create, native=passed, thread=held)


def _passed(data: bytes, body: _MessagesBody, fields: Mapping[str, bytes]) -> NativeBody | Problem:
    text = read_object(data)
    if isinstance(text, Problem):
        return text
    messages = decode(body.messages, _lists, "messages")
    if isinstance(messages, Problem):
        return messages
    own = without_foreign_thoughts(messages) if SEALED in data else None
    if own is not None:
        fields = {**fields, "messages": join(own)}
    new = bytes(body.messages).strip()[1:-1].strip() if own is None else b",".join(own)
    return NativeBody(dialect=NAME, body=text, fields=fields, messages=new)


# --- to any other upstream -------------------------------------------------------------------------------------------


def _read_body(
    data: bytes, body: _MessagesBody, limits: RequestLimits, *, native: bool = False, goes_on: bool = False
) -> Create | Problem:
    """Translate a request. If it passes through all the same (`native`), what has no counterpart is kept as text."""
    for name, value in {"mcp_servers": body.mcp_servers, "container": body.container}.items():
        if value not in (_NULL, Raw(b"[]")) and not native:
            return unsupported(name, "only a provider of this API has them, and this model has another one")
    given = read_messages(body.messages, limits, keeps_unknown=native)
    if isinstance(given, Problem):
        return given
    if not given.items and not goes_on:
        return missing("messages[0]")
    tools = _read_tools(body.tools, keeps_unknown=native)
    if isinstance(tools, Problem):
        return tools
    system = decode(body.system, _systems, "system")
    if isinstance(system, Problem):
        return system
    assert body.model is not None, "a request without a model is refused"
    instructions = system_text(body.system)
    settings = Settings(
        model=body.model,
        instructions=json_text(instructions) if instructions else None,
        tools=tools,
        max_output_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        service_tier=_TIERS.get(body.service_tier or ""),
        safety_identifier=_identifier(body.metadata),
        reasoning=_reasoning(body),
        text=_text(body),
        extra={"stop": Raw(encode(body.stop_sequences))} if body.stop_sequences else {},
        **_choice(body.tool_choice),
    )
    return Create(
        settings=settings, input=given, store=False, stream=bool(body.stream), encrypted=True, size_bytes=len(data)
    )


def _read_tools(raw: Raw, *, keeps_unknown: bool) -> list[dict[str, Any]] | Problem:
    if raw == _NULL:
        return []
    tools = decode(raw, _tools, "tools")
    if isinstance(tools, Problem):
        return tools
    written: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        if tool.type not in (None, "custom"):
            if keeps_unknown:
                continue
            return unsupported(f"tools[{index}]", "only models of this API's own provider have tools of that type")
        schema = tool.input_schema or {"type": "object", "properties": {}}
        function = {"type": "function", "name": tool.name, "parameters": schema, "strict": bool(tool.strict)}
        written.append(function | ({} if tool.description is None else {"description": tool.description}))
    return written


def _choice(choice: _Choice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    wanted = {"type": "function", "name": choice.name} if choice.type == "tool" else _CHOICES[choice.type]
    return {"tool_choice": wanted, "parallel_tool_calls": not choice.disable_parallel_tool_use}


def _identifier(metadata: _Metadata | None) -> str | None:
    """Return who the user is; of a longer name a digest, which says as much."""
    ident = None if metadata is None else metadata.user_id
    if not ident or len(ident) <= _MAX_IDENTIFIER:
        return ident or None
    return hashlib.sha256(ident.encode("utf-8", "surrogatepass")).hexdigest()


def _reasoning(body: _MessagesBody) -> dict[str, Any] | None:
    thinking = body.thinking
    if thinking is None or thinking.type == "disabled":
        return None
    if thinking.type == "enabled":
        budget = thinking.budget_tokens or 0
        effort = next(effort for least, effort in _BUDGETS if budget >= least)
    else:
        effort = (None if body.output_config is None else body.output_config.effort) or _ADAPTIVE
        effort = _EFFORTS.get(effort, effort)
    return {"effort": effort} | ({} if thinking.display == "omitted" else {"summary": "auto"})


def _text(body: _MessagesBody) -> dict[str, Any]:
    form = body.output_format or (None if body.output_config is None else body.output_config.format)
    if form is None or form.type != "json_schema" or form.schema is None:
        return {}
    return {"format": {"type": "json_schema", "name": "output", "schema": form.schema, "strict": True}}
