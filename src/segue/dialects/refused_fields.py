"""Which of the fields that the gateway added by itself does a refusal name? A pure decision, for all APIs.

Providers name a field that they do not take in many ways: in `param`, in the `loc` of a validation error, in a path
before the message, or only in the words of the message. A refusal is searched in those places and nowhere else: a
validation error often quotes the request, in which a client can write what it likes. Not here: sending the request
again (`upstreams`), and what is remembered (`upstreams.learned_refusals`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from segue.protocol.codec import UNREADABLE

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
#: not allowed ('x' was unexpected)" (JSON Schema), "does not support parameter x" (xAI).
_REFUSES = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|unexpected|extra_forbidden|value_error\.extra|cannot find field"
    r"|not (?:be )?(?:supported|permitted|allowed|recogni[sz]ed|known|available)|n[o']t (?:support|accept|take)"
    r"|invalid (?:parameter|field|argument|key|property)",
    re.IGNORECASE,
)
_IN_PATH = re.compile(r"[^.\[\]]+")

#: Fields that stand inside of others, and that a provider can also refuse for what stands beside them.
_NESTED = frozenset({"cache_control"})
#: How a text names a field whose name is a word of English too: in quotes, or by what the gateway writes into it.
_BY_WORDS: Mapping[str, str] = {"include": r"['\"`]include(?:\[0\])?['\"`]|encrypted[ ._]content"}


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
    if refusal.path and field in _NESTED:
        return field in refusal.path and _REFUSES.search(refusal.text) is not None
    if refusal.path:
        return refusal.path[0] == field
    word = field.replace("_", "_?")  # some write it in camel case
    named = _BY_WORDS.get(field, rf"(?<![A-Za-z0-9_]){word}(?![A-Za-z0-9_])")
    return bool(_REFUSES.search(refusal.text) and re.search(named, refusal.text, re.IGNORECASE))
