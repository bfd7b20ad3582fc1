"""What becomes of each part of a request in a dialect: one table per dialect, which the renderer runs on.

The same tables make the documentation, so that nothing is left out of it, and nothing is left out in silence: a field
is carried, translated, refused, dropped with a warning, or it is the gateway's own business. Not here: the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from segue.protocol.problems import Problem, unsupported
from segue.protocol.requests import Settings

Fate = Literal["carried", "translated", "refused", "dropped", "ours"]
#: What the fates mean, for the documentation.
FATES: Mapping[Fate, str] = {
    "carried": "The upstream gets it as it is.",
    "translated": "The upstream gets what says the same in its API.",
    "refused": "The request is answered with an error: leaving it out would answer it wrongly.",
    "dropped": "It is left out, and `warnings` of the response says so.",
    "ours": "The gateway does it; the upstream need not know.",
}


#: What is known of settings that are objects; what else is in them is said to be left out.
TEXT_FIELDS = frozenset({"format", "verbosity"})
FORMAT_FIELDS = frozenset({"type", "name", "description", "schema", "strict"})
REASONING_FIELDS = frozenset({"effort", "summary", "generate_summary"})


class Rule(msgspec.Struct, frozen=True):
    """What becomes of something, and how."""

    fate: Fate
    note: str = ""


_OWN = ("model", "stream", "tools", "tool_choice")
_KEPT = ("instructions", "include", "store", "previous_response_id", "conversation", "background")
#: By dialect: the fields of a body that are the gateway's own business, the conversation and how it is sent.
OWN_FIELDS: Mapping[str, frozenset[str]] = {
    "responses": frozenset((*_OWN, *_KEPT, "input", "prompt_cache_key")),
    "chat": frozenset((*_OWN, "messages", "stream_options", "prompt_cache_key")),
    "messages": frozenset((*_OWN, "messages", "system", "max_tokens")),
}


class Preset(msgspec.Struct, frozen=True):
    """What an upstream is configured to say in every request.

    `fields` stand in each body, unless a setting of the request becomes the same field. `withheld` are fields that only
    the upstream itself writes, when the body is done. What a client sends under such a name, and the API does not know,
    is left out.
    """

    fields: Mapping[str, Any] = {}
    withheld: frozenset[str] = frozenset()

    def owns(self, name: str) -> bool:
        """Tell whether a field is the configuration's."""
        return name in self.fields or name in self.withheld


class RequestBuilder:
    """Builds a request body: its `fields` beside the history, the warnings about what was left out, and the problem.

    `values` are the settings by name; a setting that the request does not have stands there with its default.
    """

    def __init__(self, model: str, settings: Settings, preset: Preset | None = None) -> None:
        self.model = model
        self.settings = settings
        self.values = msgspec.structs.asdict(settings)
        self.preset = Preset() if preset is None else preset
        self.fields: dict[str, Any] = {"model": model, **self.preset.fields}
        self.warnings: list[str] = []
        self.problem: Problem | None = None

    def drop(self, what: str, why: str) -> None:
        """Leave something out and say so."""
        warning = f"'{what}' was left out: {why}."
        if warning not in self.warnings:
            self.warnings.append(warning)

    def drop_others(self, what: str, value: Mapping[str, Any], known: frozenset[str]) -> None:
        """Leave out the fields of a value that are not known, and say so."""
        for name, member in value.items():
            if name not in known and member is not None:
                self.drop(f"{what}.{name[:40]}", "this API has nothing like it")

    def refuse(self, what: str, advice: str) -> None:
        """Refuse the request; the first reason stays."""
        self.problem = self.problem or unsupported(what, advice)


#: Fields that are known, but kept as they came, beside the settings: each has a row in the tables.
KNOWN_EXTRA = (
    *("user", "prompt_cache_retention", "prompt_cache_options", "stream_options", "context_management"),
    *("seed", "stop"),  # of Chat Completions; clients send them to this API too
)

#: The row of the tables for the fields of a request that have no row.
OTHERS = "any other field"

#: Fields that are named when they are left out; what is more is counted. A client can send any number of them.
_NAMED = 8


class Field(msgspec.Struct, frozen=True):
    """A setting of the request: its rule, and the function that acts on it (called only where the field is set)."""

    rule: Rule
    write: Callable[[RequestBuilder], None]


def ours(note: str) -> Field:
    """A setting that the gateway acts on itself."""
    return Field(Rule("ours", note), lambda _: None)


def carried(name: str, wire: str | None = None) -> Field:
    """A setting that goes on as it is, maybe under another name."""
    note = "" if wire is None else f"As `{wire}`."

    def write(builder: RequestBuilder) -> None:
        builder.fields[wire or name] = builder.values[name]

    return Field(Rule("carried", note), write)


def dropped(name: str, why: str) -> Field:
    """A setting that the API does not have and the answer does not depend on."""
    return Field(Rule("dropped", f"{why[0].upper()}{why[1:]}."), lambda builder: builder.drop(name, why))


def passed(name: str) -> Field:
    """A field that nothing here acts on and the API has too: it goes on as it came."""

    def write(builder: RequestBuilder) -> None:
        builder.fields[name] = builder.settings.extra[name]

    return Field(Rule("carried"), write)


def _drop_unknown(builder: RequestBuilder, names: Sequence[str]) -> None:
    for name in names[:_NAMED]:
        builder.drop(name[:60], "this API has nothing like it")
    if len(names) > _NAMED:
        builder.warnings.append(
            f"{len(names) - _NAMED} more fields of the request were left out: they are unknown here."
        )


def dropped_others(fields: Iterable[str]) -> Field:
    """What is done with fields that are not among `fields`, in an API whose fields we all know."""
    known = frozenset(fields)

    def write(builder: RequestBuilder) -> None:
        _drop_unknown(builder, [name for name in builder.settings.extra if name not in known])

    return Field(Rule("dropped", "This API has nothing like it."), write)


def obfuscation() -> Field:
    """`stream_options`, in an API whose streams are written anew here."""

    def write(builder: RequestBuilder) -> None:
        options = msgspec.json.decode(builder.settings.extra["stream_options"])
        builder.drop_others("stream_options", options, frozenset({"include_obfuscation"}))

    return Field(Rule("ours", "Events are padded by providers of the API itself only."), write)


_DEFAULTS = msgspec.structs.asdict(Settings(model=""))
_SETTINGS = frozenset(Settings.__struct_fields__) - {"extra"}


def write_settings(builder: RequestBuilder, fields: Mapping[str, Field]) -> None:
    """Act on every setting that differs from its default, in the order of the table, and on what else came."""
    settings = builder.settings
    for name, field in fields.items():
        if name in _SETTINGS:
            there = builder.values[name] != _DEFAULTS[name]
        else:
            there = bool(settings.extra) if name == OTHERS else name in settings.extra
        if there:
            field.write(builder)
