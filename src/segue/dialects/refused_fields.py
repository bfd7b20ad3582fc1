"""Which of what the gateway added by itself does a refusal name? A pure decision, for all APIs.

A form that the gateway chose for the history, such as that of call ids, counts as a field here. Providers name a field
that they do not take in many ways: in `param`, in the `loc` of a validation error, in a path before the message, or
only in the words of the message. A refusal is searched in those places and nowhere else: a validation error often
quotes the request, in which a client can write what it likes.

Reasoning that only its provider can read is a case of its own (`SEALED_REASONING`): the provider takes the field and
refuses what one conversation has in it, because it is now asked with another organization's key, say, or for another
model. So nothing is to be learned from that. Not here: sending the request again (`upstreams`), and what is remembered
(`upstreams.learned_refusals`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from segue.protocol.codec import UNREADABLE

#: The name for reasoning that the provider wants back unread: it can be refused for what it is, in one conversation.
SEALED_REASONING = "sealed_reasoning"

#: The statuses of a request that the provider has read and does not take.
_STATUSES = frozenset({400, 422})

#: Where an error is, in the shapes of all providers; other members may quote the request. Mistral puts a whole error,
#: as an object or as its text, into `message`; OpenRouter puts the text of another provider's into `metadata.raw`.
_INSIDE = ("error", "errors", "detail", "details", "message", "metadata", "raw", "msg")

#: How much of a refusal is looked at: so many errors, nested so deeply, and so much of a text.
_MOST, _DEEPEST, _LONGEST = 64, 12, 4096

#: How providers say that they do not take a field: "Unknown parameter: 'x'" and "Encrypted content is not supported
#: with this model." (OpenAI), "Unrecognized request argument supplied: x" (Azure), "Extra inputs are not permitted"
#: (pydantic, so Anthropic, Mistral, vLLM), "extra fields not permitted" (pydantic 1), "unknown field `x`" (serde),
#: 'Unknown name "x": Cannot find field.' (Google), "property 'x' is unsupported" (Groq), "Additional properties are
#: not allowed ('x' was unexpected)" (JSON Schema), "does not support parameter x" (xAI). A beta: "capability_rejected:
#: beta_header:x" and "Unexpected value(s) `x` for the `anthropic-beta` header" (Anthropic and those before it).
_REFUSES = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|unexpected|extra_forbidden|value_error\.extra|cannot find field"
    r"|not (?:be )?(?:supported|permitted|allowed|recogni[sz]ed|known|available)|n[o']t (?:support|accept|take)"
    r"|invalid (?:parameter|field|argument|key|property)|capability_rejected",
    re.IGNORECASE,
)
_IN_PATH = re.compile(r"[^.\[\]]+")

#: Fields that stand inside of others, by the names that they have there. They can also be refused for what stands
#: beside them, so that the words have to say that they are not taken.
_NESTED: Mapping[str, frozenset[str]] = {
    "cache_control": frozenset({"cache_control"}),
    "reasoning": frozenset({"reasoning", "reasoning_content", "reasoning_details"}),  # in messages of the model's
}
#: How a text names a field whose name is a word of English too: in quotes, or by what the gateway writes into it.
_BY_WORDS: Mapping[str, str] = {
    "include": r"['\"`]include(?:\[0\])?['\"`]|encrypted[ ._]content",
    "reasoning": r"(?<![A-Za-z0-9_])reasoning_?(?:content|details)(?![A-Za-z0-9_])|['\"`]reasoning['\"`]",
    "thread": r"(?<![A-Za-z0-9_])thread(?![A-Za-z0-9_])|message-threads-\d",
}

#: How providers refuse to read their own reasoning: OpenAI ("The encrypted content gAAA… could not be verified."),
#: Anthropic ("Invalid `signature` in `thinking` block", "blocks in the latest assistant message cannot be modified"),
#: Google ("Corrupted thought signature."). Or they do not want it where it stands: Anthropic ("Expected `thinking` or
#: `redacted_thinking`, but found `tool_use`.", where a later message of a tool loop has no thoughts).
_UNREADABLE = re.compile(
    r"encrypted content\b.{0,2000}?could not be (?:verified|decrypted)"
    r"|invalid [`'\"]?(?:signature|data)[`'\"]? in [`'\"]?(?:redacted_)?thinking"
    r"|thinking[`'\"]? blocks .{0,80}?cannot be modified"
    r"|expected [`'\"]?thinking[`'\"]? or [`'\"]?redacted_thinking[`'\"]?,? but found"
    r"|(?:corrupted|invalid) thought.?signature|thought.?signature is (?:not valid|invalid)",
    re.IGNORECASE | re.DOTALL,
)
#: What is refused in words of its own, most of it a form of the history.
_IN_OWN_WORDS: Mapping[str, re.Pattern[str]] = {
    # Mistral (errors 3280 and 3230), and servers that run its templates and tokenizers, such as vLLM
    "call_ids": re.compile(r"tool call ids? .{0,400}length (?:of )?9", re.IGNORECASE | re.DOTALL),
    "user_after_tool": re.compile(r"unexpected role 'user' after role 'tool'", re.IGNORECASE),
    # DeepSeek: "The `reasoning_content` in the thinking mode must be passed back to the API."; Moonshot: "thinking is
    # enabled but reasoning_content is missing in assistant tool call message"
    "call_reasoning": re.compile(
        r"reasoning_content\W.{0,80}?(?:must be passed back|is missing)", re.IGNORECASE | re.DOTALL
    ),
    # Gemini, also behind other servers: "Function call is missing a thought_signature in functionCall parts."
    "call_signature": re.compile(r"missing a [`'\"]?thought_?signature", re.IGNORECASE),
    # Anthropic: models that take no `tool_choice` that forces a tool, and those that do not think then
    "forced_tool_choice": re.compile(
        r"tool_choice: type .{0,40}not supported|tool_choice forces tool use is not compatible", re.IGNORECASE
    ),
    "forced_thinking": re.compile(r"thinking may not be enabled when tool_choice forces", re.IGNORECASE),
    # LM Studio
    "named_tool_choice": re.compile(r"invalid tool_choice type: 'object'", re.IGNORECASE),
    SEALED_REASONING: _UNREADABLE,
    # Anthropic: "max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for …"; DeepSeek: "the
    # valid range of max_tokens is [1, 8192]". That input and output are too long together is something else.
    "max_tokens": re.compile(
        r"max_tokens: \d+ > \d+|valid range of max_tokens|max_tokens is too large|exceeds the model limit of \d+",
        re.IGNORECASE,
    ),
}


def refused_fields(status: int, body: bytes, own_fields: frozenset[str]) -> frozenset[str]:
    """Return those of `own_fields` that a refusal says are not taken; none if the refusal is about something else."""
    if status not in _STATUSES or not own_fields:
        return frozenset()
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE:
        value = body[:_LONGEST].decode("utf-8", "replace")
    errors = [error for error, _ in zip(_errors(value, _DEEPEST), range(_MOST), strict=False)]
    return frozenset(name for name in own_fields if any(_names(error, name) for error in errors))


class _Refusal(msgspec.Struct, frozen=True):
    """One error: the path to the field, if it has one, and its words."""

    path: tuple[str, ...]
    text: str


def _errors(value: object, depth: int) -> Iterator[_Refusal]:
    """Find the errors in a JSON value: objects, lists of them, and texts, which may be JSON themselves."""
    if depth == 0:
        return
    if isinstance(value, list):
        for member in value[:_MOST]:
            yield from _errors(member, depth - 1)
    elif isinstance(value, str):
        yield from _errors_in_text(value[:_LONGEST], depth)
    elif isinstance(value, dict):
        path = _path(value)
        if path:
            yield _Refusal(path, " ".join(_words(value)))
            return
        for name in _INSIDE:
            if name in value:
                yield from _errors(value[name], depth - 1)


def _errors_in_text(text: str, depth: int) -> Iterator[_Refusal]:
    if text.lstrip()[:1] in {"{", "["}:
        try:
            yield from _errors(msgspec.json.decode(text), depth - 1)
        except UNREADABLE:
            pass  # a text like any other
        else:
            return
    yield _Refusal((), text)


def _path(error: dict[str, Any]) -> tuple[str, ...]:
    """Return the path that an error names, without the `body` that FastAPI begins it with."""
    loc, param = error.get("loc"), error.get("param")
    if isinstance(loc, list):
        names = tuple(name for name in loc[:_MOST] if isinstance(name, str))
    elif isinstance(param, str) and param not in {"None", "null"}:  # LiteLLM writes Python's words
        names = tuple(_IN_PATH.findall(param[:_LONGEST]))
    else:
        return ()
    return names[1:] if names[:1] == ("body",) else names


def _words(error: dict[str, Any]) -> Iterator[str]:
    for name in ("message", "msg", "code", "type"):
        if isinstance(word := error.get(name), str):
            yield word[:_LONGEST]


def _names(refusal: _Refusal, field: str) -> bool:
    if field in _IN_OWN_WORDS:
        return _IN_OWN_WORDS[field].search(refusal.text) is not None
    if refusal.path and field in _NESTED:
        return not _NESTED[field].isdisjoint(refusal.path) and _REFUSES.search(refusal.text) is not None
    if refusal.path:
        return refusal.path[0] == field
    word = field.replace("_", "_?")  # some write it in camel case
    named = _BY_WORDS.get(field, rf"(?<![A-Za-z0-9_]){word}(?![A-Za-z0-9_])")
    return bool(_REFUSES.search(refusal.text) and re.search(named, refusal.text, re.IGNORECASE))
