"""What the local model does with each setting of a request: a table like a dialect's. A setting that it drops becomes a
warning, so none is lost silently. Not here: how the engine obeys the others.
"""

from __future__ import annotations

from collections.abc import Mapping

from segue.dialects.rules import (
    FORMAT_FIELDS,
    KNOWN_EXTRA,
    OTHERS,
    TEXT_FIELDS,
    Field,
    RequestBuilder,
    Rule,
    dropped,
    dropped_others,
    obfuscation,
    ours,
    write_settings,
)
from segue.engine.sampling_params import LONGEST_STOP, MOST_STOPS
from segue.protocol.requests import ENCRYPTED_REASONING, OUTPUT_LOGPROBS, Settings

_CALLED = "The local model calls functions only: the tool {!r} is left out."


def _obeyed(note: str = "") -> Field:
    return Field(Rule("carried", note), lambda _: None)


def _write_tools(builder: RequestBuilder) -> None:
    for tool in builder.settings.tools:
        if tool.get("type") != "function":
            builder.warnings.append(_CALLED.format(str(tool.get("name") or tool.get("type"))[:64]))


def _write_text(builder: RequestBuilder) -> None:
    builder.drop_others("text", builder.settings.text, TEXT_FIELDS)
    builder.drop_others("text.format", builder.settings.text.get("format") or {}, FORMAT_FIELDS)
    if builder.settings.text.get("verbosity") is not None:
        builder.drop("text.verbosity", "the local model has none")


def _write_include(builder: RequestBuilder) -> None:
    for name in builder.settings.include:
        if name not in {ENCRYPTED_REASONING, OUTPUT_LOGPROBS}:
            builder.drop(f"include: {name[:60]}", "the local model has nothing like it")


_MODEL = "the local model has none"
#: What becomes of each setting.
LOCAL_FIELDS: Mapping[str, Field] = {
    "model": _obeyed(),
    "instructions": _obeyed("As the first message."),
    "tools": Field(
        Rule("carried", "Functions; `warnings` names tools of other kinds, which the model does not get."), _write_tools
    ),
    "tool_choice": _obeyed("Among functions; the gateway refuses anything else."),
    "parallel_tool_calls": _obeyed(),
    "text": Field(Rule("carried", "`format`, but not `verbosity`."), _write_text),
    "reasoning": dropped("reasoning", "the local model thinks as its chat template has it"),
    "metadata": ours("It stands in the response."),
    "include": Field(
        Rule(
            "carried",
            "`message.output_text.logprobs`. There is no `reasoning.encrypted_content`; others are dropped.",
        ),
        _write_include,
    ),
    "max_output_tokens": _obeyed(),
    "max_tool_calls": dropped("max_tool_calls", "it is about tools that the provider runs, and it runs none"),
    "temperature": _obeyed(),
    "top_p": _obeyed(),
    "top_logprobs": _obeyed("With `logprobs` of the text."),
    "presence_penalty": _obeyed(),
    "frequency_penalty": _obeyed(),
    "truncation": _obeyed(),
    "service_tier": dropped("service_tier", _MODEL),
    "safety_identifier": ours("Nobody else is told."),
    "prompt_cache_key": ours("What was read before is found by its tokens."),
    "user": ours("Nobody else is told."),
    "prompt_cache_retention": dropped("prompt_cache_retention", "what was read is kept as long as there is room"),
    "prompt_cache_options": dropped("prompt_cache_options", _MODEL),
    "stream_options": obfuscation(),
    "context_management": dropped(
        "context_management", "the gateway compacts histories itself, and knows nothing else of it"
    ),
    "seed": _obeyed("An integer; for what `temperature` or `top_p` draw."),
    "stop": _obeyed(f"A string or up to {MOST_STOPS}, of at most {LONGEST_STOP} characters each; of the text only."),
    OTHERS: dropped_others(KNOWN_EXTRA),
}


def loss_warnings(settings: Settings) -> tuple[str, ...]:
    """Return a sentence for each setting of a request that the local model drops."""
    builder = RequestBuilder(settings.model, settings)
    write_settings(builder, LOCAL_FIELDS)
    return tuple(dict.fromkeys(builder.warnings))
