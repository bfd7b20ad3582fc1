"""The door of Chat Completions: what a request of this API asks for, as a create that any upstream can run.

Each setting has one meaning in the Responses API, and becomes that one. What would change the answer and has no
counterpart is refused. Fields that this API has and the other has not are kept, as unknown ones are: the upstream's
dialect says what becomes of them. The API is stateless: nothing is stored, and each request has its whole history. If
the upstream speaks this API too, it gets the client's own body, and little of it is read here. Not here: the messages
(`door_items`), and the reply (`door_reply`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from segue.dialects.chat.door_items import read_messages, read_opening
from segue.dialects.chat.reasoning_details import SEALED, without_sealed
from segue.dialects.doors import DoorRequest, Speaks
from segue.dialects.rules import OTHERS, Rule
from segue.protocol.codec import decode, decode_value, encode, unknown_fields, without_lone_surrogates
from segue.protocol.items import join
from segue.protocol.object_text import read_object
from segue.protocol.problems import Problem, missing, thread_unsupported, unsupported
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits, refuse_size
from segue.protocol.requests import (
    OUTPUT_LOGPROBS,
    Count,
    Create,
    Metadata,
    NativeBody,
    Penalty,
    Settings,
)

Json = dict[str, Any]
_NULL = Raw(b"null")


class _FunctionDefinition(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class _Grammar(msgspec.Struct):
    definition: str
    syntax: str


class _CustomFormat(msgspec.Struct):
    type: str = "text"
    grammar: _Grammar | None = None


class _CustomDefinition(msgspec.Struct):
    name: str
    description: str | None = None
    format: _CustomFormat | None = None


class _ChatTool(msgspec.Struct):
    type: str
    function: _FunctionDefinition | None = None
    custom: _CustomDefinition | None = None


class _Named(msgspec.Struct):
    name: str


class _NamedTool(msgspec.Struct):
    type: str
    function: _Named | None = None
    custom: _Named | None = None


class _AllowedTools(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: list[_NamedTool]


class _ChatToolChoice(_NamedTool):
    allowed_tools: _AllowedTools | None = None


class _SchemaFormat(msgspec.Struct):
    name: str
    description: str | None = None
    schema: Json | None = None
    strict: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str
    json_schema: _SchemaFormat | None = None


class _ChatStreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _ChatReasoning(msgspec.Struct):
    """What OpenRouter has beside `reasoning_effort`, and what its clients send to all servers."""

    effort: str | None = None
    summary: str | None = None


class _ChatBody(msgspec.Struct, kw_only=True):
    """The fields that are acted on; `null` means absent."""

    model: str | None = None
    messages: list[Raw] | None = None
    stream: bool | None = None
    stream_options: _ChatStreamOptions | None = None
    n: int | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    modalities: list[str] | None = None
    audio: Raw = _NULL
    functions: Raw = _NULL
    function_call: Raw = _NULL
    previous_response_id: Raw = _NULL
    conversation: Raw = _NULL
    thread: Raw = _NULL
    tools: Raw = _NULL
    tool_choice: Raw = _NULL
    response_format: Raw = _NULL
    verbosity: Literal["low", "medium", "high"] | None = None
    reasoning_effort: str | None = None
    reasoning: _ChatReasoning | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    parallel_tool_calls: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class ChatRequest(DoorRequest, frozen=True, kw_only=True):
    """A request at this door. Its stream tells the usage only if the client asks for it."""

    include_usage: bool = False
    warnings: tuple[str, ...] = ()


_bodies = msgspec.json.Decoder(_ChatBody)
_tools = msgspec.json.Decoder(list[_ChatTool])
_choices = msgspec.json.Decoder(Literal["none", "auto", "required"] | _ChatToolChoice)
_formats = msgspec.json.Decoder(_ResponseFormat)

#: Settings that have the same name and meaning in both APIs.
_SAME = (
    *("parallel_tool_calls", "temperature", "top_p", "presence_penalty", "frequency_penalty", "service_tier"),
    *("safety_identifier", "prompt_cache_key"),
)
#: What becomes of each field of a request whose model speaks another API, for the documentation and its tests.
DOOR_FIELDS: Mapping[str, Rule] = MappingProxyType(
    {
        "model": Rule("carried", "Required."),
        "messages": Rule("translated", "Required. Each becomes items; see below."),
        "stream": Rule("ours", "The reply is one completion, or chunks of one."),
        "stream_options": Rule("ours", "`include_usage`: a last chunk tells the usage."),
        "max_tokens": Rule("translated", "`max_output_tokens`; one of the two names."),
        "max_completion_tokens": Rule("translated", "`max_output_tokens`; one of the two names."),
        "tools": Rule("translated", "`function` and `custom` tools. Without `strict`, a function is not strict."),
        "tool_choice": Rule("translated", "`auto`, `none`, `required`, a named tool, and `allowed_tools`."),
        "response_format": Rule("translated", "`text.format`. A `json_schema` needs its `schema`."),
        "reasoning_effort": Rule("translated", "`reasoning.effort`."),
        "reasoning": Rule(
            "translated", "`effort` and `summary` of OpenRouter's object; its other fields are unknown here."
        ),
        "verbosity": Rule("translated", "`text.verbosity`."),
        "logprobs": Rule("translated", "Where the upstream tells them; else they are null."),
        "top_logprobs": Rule("carried", "With `logprobs`."),
        **{name: Rule("carried") for name in _SAME},
        "n": Rule("refused", "Unless it is 1."),
        "store": Rule("refused", "If it is true: nothing is stored here. `POST /v1/responses` stores."),
        "metadata": Rule("refused", "It is about completions that are stored."),
        "modalities": Rule("refused", 'Unless they are `["text"]`.'),
        "audio": Rule("refused", "Answers are text."),
        "functions": Rule("refused", "Send `tools`."),
        "function_call": Rule("refused", "Send `tool_choice`."),
        **{
            name: Rule("refused", "A history that is not sent would be lost.")
            for name in ("previous_response_id", "conversation", "thread")
        },
        OTHERS: Rule("carried", "Each upstream's dialect says what becomes of it; see [Dialects](dialects.md)."),
    }
)

_Asks = Callable[[_ChatBody], bool]
_NO_STATE = "this API keeps none; send all messages, or continue a response at POST /v1/responses"
#: What can be asked for and cannot be had: the field, whether a request asks for it, and what to do instead.
_REFUSALS: Sequence[tuple[str, _Asks, str]] = (
    ("n", lambda body: body.n not in (None, 1), "a request has one answer; send it again for another one"),
    ("store", lambda body: body.store is True, "no completion is stored; POST /v1/responses keeps a history by its id"),
    ("metadata", lambda body: bool(body.metadata), "it is about completions that are stored, and none is"),
    ("modalities", lambda body: body.modalities not in (None, ["text"]), "answers are text"),
    ("audio", lambda body: body.audio != _NULL, "answers are text"),
    ("functions", lambda body: body.functions != _NULL, "send tools"),
    ("function_call", lambda body: body.function_call != _NULL, "send tool_choice"),
    ("previous_response_id", lambda body: body.previous_response_id != _NULL, _NO_STATE),
    ("conversation", lambda body: body.conversation != _NULL, _NO_STATE),
)


def read_chat_request(data: bytes, speaks: Speaks, limits: RequestLimits = DEFAULT_LIMITS) -> ChatRequest | Problem:
    """Read the body of a request. `speaks` says of a model whether its upstream has this API.

    Half a character becomes U+FFFD, as in requests of the Responses API.
    """
    return refuse_size(data, limits) or _read(data, speaks, limits)


def _read(data: bytes, speaks: Speaks, limits: RequestLimits) -> ChatRequest | Problem:
    body = decode(data, _bodies)
    if isinstance(body, Problem):
        repaired = without_lone_surrogates(data)
        return body if repaired is None else _read(repaired, speaks, limits)
    problem = _refuse(body, limits)
    if problem is not None:
        return problem
    create = _pass_on(body, data) if speaks(body.model or "") else _translate(body, data)
    if isinstance(create, Problem):
        return create
    options = body.stream_options
    return msgspec.structs.replace(create, include_usage=options is not None and options.include_usage is True)


def _pass_on(body: _ChatBody, data: bytes) -> ChatRequest | Problem:
    """Return a request that its upstream gets as it is, and judges: nothing more of it is read."""
    text = read_object(data)
    if isinstance(text, Problem):
        return text
    opening, replayed = read_opening(body.messages or ())
    messages = without_sealed(body.messages or ()) if SEALED in data else None
    fields = {} if messages is None else {"messages": join(messages)}
    native = NativeBody(dialect="chat", body=text, fields=fields, opening=opening, replayed=replayed)
    settings = Settings(model=body.model or "", max_output_tokens=_limit(body))
    return ChatRequest(
        create=Create(settings=settings, store=False, stream=bool(body.stream), native=native, size_bytes=len(data))
    )


def _translate(body: _ChatBody, data: bytes) -> ChatRequest | Problem:
    settings = _settings(body, data)
    if isinstance(settings, Problem):
        return settings
    read = read_messages(body.messages or ())
    if isinstance(read, Problem):
        return read
    create = Create(
        settings=settings,
        input=read.input,
        store=False,
        stream=bool(body.stream),
        encrypted=True,
        size_bytes=len(data),
    )
    return ChatRequest(create=create, warnings=read.warnings)


def _limit(body: _ChatBody) -> int | None:
    return body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens


def _refuse(body: _ChatBody, limits: RequestLimits) -> Problem | None:
    if not body.model:
        return missing("model")
    if not body.messages:
        return missing("messages")
    if len(body.messages) > limits.items:
        message = f"'messages' has {len(body.messages)} messages; a request may have {limits.items}."
        return Problem("invalid_value", message, "messages")
    if body.thread != _NULL:  # of the Messages API: its history would be lost
        return thread_unsupported("this API keeps no threads")
    refused = next(((name, advice) for name, asks, advice in _REFUSALS if asks(body)), None)
    return _refuse_pairs(body) if refused is None else unsupported(*refused)


def _refuse_pairs(body: _ChatBody) -> Problem | None:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        message = "'max_tokens' and 'max_completion_tokens' are two names of one limit. Send 'max_completion_tokens'."
        return Problem("invalid_value", message, "max_tokens")
    if body.top_logprobs and not body.logprobs:
        return Problem("invalid_value", "'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    return None


# --- settings --------------------------------------------------------------------------------------------------------


def _settings(body: _ChatBody, data: bytes) -> Settings | Problem:
    fields = msgspec.structs.asdict(body)
    values: Json = {name: fields[name] for name in _SAME if fields[name] is not None}
    for name, read in (("tools", _read_tools), ("tool_choice", _read_choice), ("text", _read_text)):
        value = read(body)
        if isinstance(value, Problem):
            return value
        if value:
            values[name] = value
    effort, asked = body.reasoning_effort, body.reasoning or _ChatReasoning()
    reasoning = {"effort": effort if asked.effort is None else asked.effort, "summary": asked.summary}
    values["reasoning"] = {name: value for name, value in reasoning.items() if value is not None} or None
    extra = _extra(body, data)
    if isinstance(extra, Problem):
        return extra
    return Settings(
        model=body.model or "",
        max_output_tokens=_limit(body),
        top_logprobs=body.top_logprobs or 0,
        include=(OUTPUT_LOGPROBS,) if body.logprobs else (),
        extra=extra,
        **values,
    )


def _read_tools(body: _ChatBody) -> list[Json] | Problem:
    """Return the tools as the Responses API has them. One of a type that this API has not stays as it is."""
    if body.tools == _NULL:
        return []
    tools = decode(body.tools, _tools, "tools")
    if isinstance(tools, Problem):
        return tools
    values = decode_value(body.tools, "tools")
    if isinstance(values, Problem):
        return values
    read: list[Json] = []
    for index, (tool, value) in enumerate(zip(tools, values, strict=True)):
        if tool.type in ("function", "custom") and value.get(tool.type) is None:
            return missing(f"tools[{index}].{tool.type}")
        read.append(_tool(tool, value))
    return read


def _tool(tool: _ChatTool, value: Json) -> Json:
    if tool.type == "function" and tool.function is not None:
        function = tool.function
        described = {} if function.description is None else {"description": function.description}
        parameters = function.parameters or {"type": "object", "properties": {}}
        # Without the word this API is not strict, and the other one is.
        strict = function.strict is True
        return {"type": "function", "name": function.name, **described, "parameters": parameters, "strict": strict}
    if tool.type == "custom" and tool.custom is not None:
        custom = tool.custom
        described = {} if custom.description is None else {"description": custom.description}
        return {"type": "custom", "name": custom.name, **described, **_custom_format(custom.format)}
    return value


def _custom_format(form: _CustomFormat | None) -> Json:
    if form is None:
        return {}
    grammar = {} if form.grammar is None else msgspec.structs.asdict(form.grammar)
    return {"format": {"type": form.type, **grammar}}


def _read_choice(body: _ChatBody) -> str | Json | Problem:
    if body.tool_choice == _NULL:
        return ""
    choice = decode(body.tool_choice, _choices, "tool_choice")
    if isinstance(choice, Problem | str):
        return choice
    if choice.type == "allowed_tools":
        allowed = choice.allowed_tools
        if allowed is None:
            return missing("tool_choice.allowed_tools")
        tools = [_named(tool, f"tool_choice.allowed_tools.tools[{at}]") for at, tool in enumerate(allowed.tools)]
        problem = next((tool for tool in tools if isinstance(tool, Problem)), None)
        return problem or {"type": "allowed_tools", "mode": allowed.mode, "tools": tools}
    return _named(choice, "tool_choice")


def _named(tool: _NamedTool, where: str) -> Json | Problem:
    named = {"function": tool.function, "custom": tool.custom}
    if tool.type not in named:
        return unsupported(f"{where}.type", "choose a function or a custom tool")
    found = named[tool.type]
    return missing(f"{where}.{tool.type}") if found is None else {"type": tool.type, "name": found.name}


def _read_text(body: _ChatBody) -> Json | Problem:
    text: Json = {} if body.verbosity is None else {"verbosity": body.verbosity}
    if body.response_format == _NULL:
        return text
    form = decode(body.response_format, _formats, "response_format")
    if isinstance(form, Problem):
        return form
    if form.type != "json_schema":
        return text | {"format": {"type": form.type}}
    value = decode_value(body.response_format, "response_format")
    if isinstance(value, Problem):
        return value
    if form.json_schema is None or form.json_schema.schema is None:
        return missing("response_format.json_schema" + ("" if form.json_schema is None else ".schema"))
    about = msgspec.structs.asdict(form.json_schema)
    return text | {"format": {"type": "json_schema", **{name: one for name, one in about.items() if one is not None}}}


def _extra(body: _ChatBody, data: bytes) -> dict[str, Raw] | Problem:
    """Return the fields to keep as they came."""
    options = body.stream_options
    extra: dict[str, Raw] = {}
    if options is not None and options.include_obfuscation is not None:
        extra["stream_options"] = Raw(encode({"include_obfuscation": options.include_obfuscation}))
    unknown = unknown_fields(data, _ChatBody.__struct_fields__)
    return unknown if isinstance(unknown, Problem) else extra | unknown
