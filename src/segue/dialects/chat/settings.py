"""The Chat Completions dialect: what becomes of the settings of a request. Not here: the history (`request`)."""

from __future__ import annotations

from collections.abc import Mapping

from segue.dialects.provider_profiles import ChatExtension, ProviderProfile
from segue.dialects.rules import (
    FORMAT_FIELDS,
    KNOWN_EXTRA,
    OTHERS,
    REASONING_FIELDS,
    TEXT_FIELDS,
    TRUNCATION,
    Field,
    RequestBuilder,
    Rule,
    carried,
    dropped,
    dropped_others,
    obfuscation,
    ours,
    passed,
)
from segue.dialects.tools import TOOL_CHOICE, TOOLS, check_choice, read_tools
from segue.protocol.requests import ENCRYPTED_REASONING, OUTPUT_LOGPROBS

_NOT_KNOWN = "this provider is not known to take it"


def chat_fields(profile: ProviderProfile) -> Mapping[str, Field]:
    """Return what becomes of each setting at a provider."""

    def extension(name: ChatExtension, field: Field) -> Field:
        return field if name in profile.chat_extensions else dropped(name, _NOT_KNOWN)

    verbose = "verbosity" in profile.chat_extensions
    return {
        "model": Field(Rule("carried", "The name the configuration gives it."), lambda _: None),
        "instructions": Field(Rule("translated", "The first message, of role `system`."), lambda _: None),
        "tools": Field(TOOLS, _write_tools),
        "tool_choice": Field(TOOL_CHOICE, check_choice),  # written with the tools
        "parallel_tool_calls": Field(Rule("carried", "Where it is false."), _write_parallel),
        "text": Field(
            Rule(
                "translated",
                "`format` becomes `response_format`; "
                + ("`verbosity` is carried." if verbose else "`verbosity` is dropped: few providers take it."),
            ),
            _write_text_openai if verbose else _write_text,
        ),
        "reasoning": Field(
            Rule("translated", "`effort` becomes `reasoning_effort`; reasoning that comes is shown as its summary."),
            _write_reasoning,
        ),
        "max_output_tokens": carried("max_output_tokens", profile.output_limit_field),
        "temperature": carried("temperature"),
        "top_p": carried("top_p"),
        "presence_penalty": carried("presence_penalty"),
        "frequency_penalty": carried("frequency_penalty"),
        "top_logprobs": Field(Rule("carried", "With `logprobs`."), _write_logprobs),
        "include": Field(
            Rule(
                "translated",
                "`message.output_text.logprobs` becomes `logprobs`; `reasoning.encrypted_content` is ours; others "
                "are dropped.",
            ),
            _write_include,
        ),
        "max_tool_calls": dropped("max_tool_calls", "it is about tools that the provider runs, and it runs none"),
        "truncation": ours(TRUNCATION),
        "metadata": ours("It stands in the response."),
        "service_tier": extension("service_tier", carried("service_tier")),
        "safety_identifier": extension("safety_identifier", carried("safety_identifier")),
        "prompt_cache_key": extension(
            "prompt_cache_key",
            Field(Rule("carried", "One is made of the start of the history where there is none."), _write_cache_key),
        ),
        "user": passed("user"),
        "prompt_cache_retention": extension("prompt_cache_retention", passed("prompt_cache_retention")),
        "prompt_cache_options": dropped("prompt_cache_options", "this API has nothing like it"),
        "stream_options": obfuscation(),
        "context_management": dropped(
            "context_management", "the gateway compacts histories itself, and knows nothing else of it"
        ),
        "seed": passed("seed"),
        "stop": passed("stop"),
        OTHERS: dropped_others(KNOWN_EXTRA),
    }


def _write_tools(builder: RequestBuilder) -> None:
    selection = read_tools(builder)
    if not selection.functions:
        return
    named = selection.mode == "named"
    alone = named and not (builder.profile.named_tool_choice and builder.is_wanted("named_tool_choice"))
    builder.fields["tools"] = [
        {
            "type": "function",
            "function": {"name": tool.name}
            | ({} if tool.description is None else {"description": tool.description})
            | {"parameters": tool.parameters}
            | ({"strict": True} if tool.strict else {}),
        }
        for tool in selection.functions
        if not alone or tool.name == selection.name
    ]
    if alone:
        builder.fields["tool_choice"] = "required"
    elif named:
        builder.fields["tool_choice"] = {"type": "function", "function": {"name": selection.name}}
    elif selection.mode != "auto":
        builder.fields["tool_choice"] = selection.mode


def _write_parallel(builder: RequestBuilder) -> None:
    if "tools" in builder.fields:
        builder.fields["parallel_tool_calls"] = builder.settings.parallel_tool_calls


def _write_text(builder: RequestBuilder) -> None:
    if builder.settings.text.get("verbosity") is not None:
        builder.drop("text.verbosity", _NOT_KNOWN)
    _write_format(builder)


def _write_text_openai(builder: RequestBuilder) -> None:
    if builder.settings.text.get("verbosity") is not None:
        builder.fields["verbosity"] = builder.settings.text["verbosity"]
    _write_format(builder)


def _write_format(builder: RequestBuilder) -> None:
    builder.drop_others("text", builder.settings.text, TEXT_FIELDS)
    form = builder.settings.text.get("format") or {}
    builder.drop_others("text.format", form, FORMAT_FIELDS)
    kind = form.get("type", "text")
    if kind == "json_schema":
        names = ("name", "description", "schema", "strict")
        schema = {name: form[name] for name in names if form.get(name) is not None}
        builder.fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind == "json_object":
        builder.fields["response_format"] = {"type": "json_object"}
    elif kind != "text":
        builder.refuse("text.format", "this API has `text`, `json_object` and `json_schema`")


def _write_reasoning(builder: RequestBuilder) -> None:
    reasoning = builder.settings.reasoning or {}
    builder.drop_others("reasoning", reasoning, REASONING_FIELDS)
    effort = reasoning.get("effort")
    if effort is not None:
        builder.fields["reasoning_effort"] = effort


def _write_logprobs(builder: RequestBuilder) -> None:
    builder.fields["logprobs"] = True
    builder.fields["top_logprobs"] = builder.settings.top_logprobs


def _write_include(builder: RequestBuilder) -> None:
    for name in builder.settings.include:
        if name == OUTPUT_LOGPROBS:
            builder.fields["logprobs"] = True
        elif name != ENCRYPTED_REASONING:  # the gateway has it, and shows it then
            builder.drop(f"include: {name[:60]}", "this API has nothing like it")


def _write_cache_key(builder: RequestBuilder) -> None:
    builder.fields["prompt_cache_key"] = builder.settings.prompt_cache_key
