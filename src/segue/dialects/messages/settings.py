"""The Anthropic Messages dialect: what becomes of the settings of a request. Not here: the history (`request`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from segue.dialects.messages.schemas import STRICT_TOOLS, StrictBudget, close_schema, input_schema, strict_schema
from segue.dialects.messages.thinking import LEAST_BUDGET, AskedThinking, ToolLoop, can_be_forced, choose_thinking
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
    dropped,
    dropped_others,
    obfuscation,
    ours,
)
from segue.dialects.tools import TOOL_CHOICE, TOOLS, FunctionDeclaration, check_choice, read_tools, wire_name
from segue.protocol.requests import ENCRYPTED_REASONING

#: The longest name of a tool that this API takes.
NAME_LENGTH = 128
_FORCED = frozenset({"any", "tool"})
_EFFORTS = {"minimal": "low"}
#: The budget of tokens for thinking, for models that do not choose it themselves.
_BUDGETS = {"minimal": 1024, "low": 4096, "medium": 10_240, "high": 24_576, "xhigh": 31_999}
_TOO_STRICT = (
    f"this API enforces the schemas of at most {STRICT_TOOLS} tools, and of none that refers to itself or has objects "
    "with any fields; the other tools are sent without it"
)
#: How many words of schemas are named in a warning.
_NAMED = 8
_TIERS = {"default": "standard_only", "auto": "auto"}


def _write_tools(builder: RequestBuilder) -> None:
    selection = read_tools(builder)
    if not selection.functions:
        return
    limit = builder.profile.strict_tools
    budget = StrictBudget(STRICT_TOOLS if limit is None else limit)
    unenforced: dict[str, None] = {}
    builder.fields["tools"] = [_tool(builder, tool, budget, unenforced) for tool in selection.functions]
    _warn_of(builder, "tools.parameters", unenforced)
    kinds = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}
    choice: dict[str, object] = {"type": kinds[selection.mode]}
    if selection.name is not None:
        choice["name"] = wire_name(selection.name, NAME_LENGTH)
    if choice["type"] in _FORCED and not (can_be_forced(builder.model) and builder.is_wanted("forced_tool_choice")):
        builder.drop("tool_choice", "this model cannot be made to call a tool; it calls one where it sees fit")
        choice = {"type": "auto"}
    if not builder.settings.parallel_tool_calls and selection.mode != "none":
        choice["disable_parallel_tool_use"] = True
    if choice != {"type": "auto"}:
        builder.fields["tool_choice"] = choice


def _tool(
    builder: RequestBuilder, tool: FunctionDeclaration, budget: StrictBudget, unenforced: dict[str, None]
) -> dict[str, Any]:
    """Write a tool; those that are to be strict are, as long as this API has room for them."""
    written: dict[str, Any] = {"name": wire_name(tool.name, NAME_LENGTH)}
    if tool.description is not None:
        written["description"] = tool.description
    schema, told = input_schema(tool.parameters)
    unenforced.update(dict.fromkeys(told))
    closed = strict_schema(schema) if tool.strict else None
    if closed is not None and budget.take(closed.schema):
        unenforced.update(dict.fromkeys(closed.unenforced))
        return written | {"input_schema": closed.schema, "strict": True}
    if tool.strict:
        builder.drop("tools.strict", _TOO_STRICT)
    return written | {"input_schema": schema}


def _warn_of(builder: RequestBuilder, where: str, unenforced: Iterable[str]) -> None:
    """Tell which words of schemas are only told to the model, the first few of them by name."""
    words = list(unenforced)
    if words:
        more = ", …" if len(words) > _NAMED else ""
        names = ", ".join(word[:40] for word in words[:_NAMED])
        builder.drop(f"{where}: {names}{more}", "this API does not enforce it; the model reads it in a description")


def _write_text(builder: RequestBuilder) -> None:
    text = builder.settings.text
    builder.drop_others("text", text, TEXT_FIELDS)
    if text.get("verbosity") is not None:
        builder.drop("text.verbosity", "this API has none")
    form = text.get("format") or {}
    builder.drop_others("text.format", form, FORMAT_FIELDS)
    kind = form.get("type", "text")
    if kind == "json_schema":
        schema = form["schema"]
        if form.get("description") and "description" not in schema:  # this API has no other field for it
            schema = {"description": form["description"], **schema}
        schema, unenforced = close_schema(schema)
        _warn_of(builder, "text.format.schema", unenforced)
        builder.fields["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif kind != "text":
        builder.refuse("text.format", "this API has `text` and `json_schema`")


def _write_max_tokens(builder: RequestBuilder) -> None:
    builder.fields["max_tokens"] = builder.settings.max_output_tokens


def _write_temperature(builder: RequestBuilder) -> None:
    temperature = builder.settings.temperature or 0.0
    if temperature > 1:
        builder.drop("temperature", "this API goes up to 1, which it gets")
    builder.fields["temperature"] = min(temperature, 1)


def _write_top_p(builder: RequestBuilder) -> None:
    if builder.settings.temperature is not None:
        builder.drop("top_p", "this API takes it or `temperature`, not both")
    else:
        builder.fields["top_p"] = builder.settings.top_p


def _write_tier(builder: RequestBuilder) -> None:
    tier = _TIERS.get(builder.settings.service_tier or "")
    if tier is None:
        builder.drop("service_tier", "this API has `auto` and `default`")
    else:
        builder.fields["service_tier"] = tier


def _write_identifier(builder: RequestBuilder) -> None:
    builder.fields["metadata"] = {"user_id": builder.settings.safety_identifier}


def _write_user(builder: RequestBuilder) -> None:
    user = msgspec.json.decode(builder.settings.extra["user"])
    if builder.settings.safety_identifier is not None:
        builder.drop("user", "this API takes it or 'safety_identifier', not both")
    elif isinstance(user, str):
        builder.fields["metadata"] = {"user_id": user}
    else:
        builder.drop("user", "it is no text")


def _write_stop(builder: RequestBuilder) -> None:
    stop = msgspec.json.decode(builder.settings.extra["stop"])
    if isinstance(stop, str | list):
        builder.fields["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    else:
        builder.refuse("stop", "it must be a string or a list of strings")


def _write_include(builder: RequestBuilder) -> None:
    for name in builder.settings.include:
        if name != ENCRYPTED_REASONING:  # the gateway has it, and shows it then
            builder.drop(f"include: {name[:60]}", "this API has nothing like it")


#: What becomes of each setting.
MESSAGES_FIELDS: Mapping[str, Field] = {
    "model": Field(Rule("carried", "The name the configuration gives it."), lambda _: None),
    "instructions": Field(Rule("carried", "As `system`."), lambda _: None),
    "tools": Field(TOOLS, _write_tools),
    "tool_choice": Field(
        Rule(
            TOOL_CHOICE.fate,
            f"{TOOL_CHOICE.note} Where a model cannot be made to call a tool, such as Claude Opus 5.5, `auto` takes "
            "its place, with a warning.",
        ),
        check_choice,  # written with the tools
    ),
    "parallel_tool_calls": Field(Rule("translated", "`disable_parallel_tool_use`."), lambda _: None),
    "text": Field(
        Rule(
            "translated",
            "`json_schema` becomes `output_config.format`, its description that of the schema; `json_object` is "
            "refused, there is no such thing; `verbosity` is dropped.",
        ),
        _write_text,
    ),
    "reasoning": Field(
        Rule(
            "translated",
            "`effort` becomes adaptive thinking with `output_config.effort`, on models before Claude "
            "4.6 a budget; `none` turns it off, or on models that always think down to `low`. A tool loop goes on as "
            "it began. `effort` is dropped where a tool must be called, except on Claude Opus 4.8 and Claude 5, and "
            "where a budget has no room.",
        ),
        lambda _: None,  # depends on other settings: see finish_settings
    ),
    "max_output_tokens": Field(Rule("carried", "As `max_tokens`; 32,000 where there is none."), _write_max_tokens),
    "temperature": Field(Rule("carried", "At most 1, and not while thinking."), _write_temperature),
    "top_p": Field(Rule("carried", "Where no `temperature` is given, and not while thinking."), _write_top_p),
    "presence_penalty": dropped("presence_penalty", "this API has none"),
    "frequency_penalty": dropped("frequency_penalty", "this API has none"),
    "top_logprobs": dropped("top_logprobs", "this API has none"),
    "include": Field(Rule("dropped", "But for `reasoning.encrypted_content`, which is ours."), _write_include),
    "max_tool_calls": dropped("max_tool_calls", "it is about tools that the provider runs, and it runs none"),
    "truncation": ours(TRUNCATION),
    "metadata": ours("It stands in the response."),
    "service_tier": Field(
        Rule("translated", "`default` becomes `standard_only`; `flex` and the like are dropped."), _write_tier
    ),
    "safety_identifier": Field(Rule("translated", "`metadata.user_id`."), _write_identifier),
    "prompt_cache_key": ours("Prefixes are cached by the `cache_control` marks that are always set."),
    "user": Field(Rule("translated", "`metadata.user_id`, where there is no `safety_identifier`."), _write_user),
    "prompt_cache_retention": dropped("prompt_cache_retention", "prefixes are cached for as long as this API does"),
    "prompt_cache_options": dropped("prompt_cache_options", "this API has nothing like it"),
    "stream_options": obfuscation(),
    "context_management": dropped(
        "context_management", "the gateway compacts histories itself, and knows nothing else of it"
    ),
    "seed": dropped("seed", "this API has none"),
    "stop": Field(Rule("translated", "`stop_sequences`; neither a string nor a list is refused."), _write_stop),
    OTHERS: dropped_others(KNOWN_EXTRA),
}


def replaced_names(tools: list[dict[str, Any]]) -> Mapping[str, str]:
    """Return the names of the tools that have another one in this API, by that."""
    names = [str(tool["name"]) for tool in tools if tool.get("type") in ("function", "custom")]
    return {wired: name for name in names if (wired := wire_name(name, NAME_LENGTH)) != name}


def finish_settings(builder: RequestBuilder, loop: ToolLoop) -> bool:
    """Write thinking, which depends on other settings and on the present tool loop.

    Returns whether the history must hold no thoughts.
    """
    reasoning = builder.settings.reasoning or {}
    builder.drop_others("reasoning", reasoning, REASONING_FIELDS)
    forced = builder.fields.get("tool_choice", {}).get("type") in _FORCED
    exclusive = forced and not builder.is_wanted("forced_thinking")
    asked = AskedThinking(builder.model, reasoning.get("effort"), forced, builder.fields["max_tokens"] - 1, exclusive)
    chosen = choose_thinking(asked, loop)
    if chosen.unmet is not None:
        builder.drop("reasoning", chosen.unmet)
    if chosen.on:
        _write_thinking(builder, asked, chosen.effort)
    elif asked.effort == "none":
        builder.fields["thinking"] = {"type": "disabled"}
    return chosen.bare


def _write_thinking(builder: RequestBuilder, asked: AskedThinking, effort: str | None) -> None:
    if asked.by_budget:
        budget = _BUDGETS.get(effort or "", LEAST_BUDGET)
        builder.fields["thinking"] = {"type": "enabled", "budget_tokens": min(budget, asked.room)}
    else:
        shown = (builder.settings.reasoning or {}).get("summary") is not None
        builder.fields["thinking"] = {"type": "adaptive"} | ({"display": "summarized"} if shown else {})
        if effort is not None:
            given = builder.fields.get("output_config", {})
            builder.fields["output_config"] = {"effort": _EFFORTS.get(effort, effort), **given}
    for name in ("temperature", "top_p"):
        if builder.fields.pop(name, 1) != 1:
            builder.drop(name, "this API does not take it while thinking")
