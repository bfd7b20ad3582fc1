"""What becomes of each setting of a request in a dialect: the parts that each dialect's table is made of.

A dialect writes its settings by its table, and the documentation is generated from the same table. So every field has a
documented fate: it is carried, translated, refused, dropped with a warning, or handled by the gateway itself. Not here:
the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from segue.dialects.provider_profiles import PLAIN, ProviderProfile
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


#: The known fields of settings that are objects. Other fields in them are left out with a warning.
TEXT_FIELDS = frozenset({"format", "verbosity"})
FORMAT_FIELDS = frozenset({"type", "name", "description", "schema", "strict"})
REASONING_FIELDS = frozenset({"effort", "summary", "generate_summary"})


#: What becomes of `truncation` where an API does not shorten a history.
TRUNCATION = "Of a history that is too long, the oldest items are left out; `warnings` says how many."

#: Why a field of a request was left out that the provider's profile says it refuses.
REFUSED = "this provider does not take it"


class Rule(msgspec.Struct, frozen=True):
    """What becomes of a setting or an item, and how."""

    fate: Fate
    note: str = ""


_OWN = ("model", "stream", "tools", "tool_choice")
_KEPT = ("instructions", "include", "store", "previous_response_id", "conversation", "background")
#: By dialect: the fields of a body that only the gateway writes, namely the conversation and how it is sent.
OWN_FIELDS: Mapping[str, frozenset[str]] = {
    "responses": frozenset((*_OWN, *_KEPT, "input", "prompt_cache_key")),
    "chat": frozenset((*_OWN, "messages", "stream_options", "prompt_cache_key")),
    "messages": frozenset((*_OWN, "messages", "system", "max_tokens", "thread")),
}


class Preset(msgspec.Struct, frozen=True):
    """The fields that an upstream's configuration adds to every request.

    `fields` stand in each body, unless a setting of the request becomes the same field. `withheld` names fields that
    the upstream itself adds to the finished body. A client's field of such a name is left out, unless it is one that
    the API knows.
    """

    fields: Mapping[str, Any] = {}
    withheld: frozenset[str] = frozenset()

    def owns(self, name: str) -> bool:
        """Return whether only the configuration may set a field."""
        return name in self.fields or name in self.withheld


class RequestBuilder:
    """Builds a request body: its `fields` beside the history, the warnings about what was left out, and the problem.

    `values` are the settings by name; a setting that the request does not have stands there with its default.
    `own_fields` are those that nobody asked for; what is in `without`, or refused by the provider, is not added.
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        *,
        preset: Preset | None = None,
        profile: ProviderProfile = PLAIN,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self.model = model
        self.profile = profile
        self.own_fields: set[str] = set()
        self._without = without
        self.settings = settings
        self.values = msgspec.structs.asdict(settings)
        self.preset = Preset() if preset is None else preset
        self.fields: dict[str, Any] = {"model": model, **self.preset.fields}
        self.warnings: list[str] = []
        self.problem: Problem | None = None

    def is_wanted(self, name: str) -> bool:
        """Say whether to add a field that nobody asked for; if so, it is noted as one of our own."""
        if name in self._without or name in self.profile.omitted_fields:
            return False
        self.own_fields.add(name)
        return True

    def omit_refused(self) -> None:
        """Take out what this provider refuses, with a warning each; what the configuration's `body` sets stays."""
        for name in self.profile.omitted_fields:
            if name in self.fields and name not in self.preset.fields:
                del self.fields[name]
                self.drop(name, REFUSED)

    def drop(self, what: str, why: str) -> None:
        """Leave something out, with a warning."""
        warning = f"'{what}' was left out: {why}."
        if warning not in self.warnings:
            self.warnings.append(warning)

    def drop_others(self, what: str, value: Mapping[str, Any], known: frozenset[str]) -> None:
        """Leave out the fields of an object that are not in `known`, with a warning each."""
        for name, member in value.items():
            if name not in known and member is not None:
                self.drop(f"{what}.{name[:40]}", "this API has nothing like it")

    def refuse(self, what: str, advice: str) -> None:
        """Refuse the request; the first reason stays."""
        self.problem = self.problem or unsupported(what, advice)


#: Fields that no setting stands for and that are known all the same: each has a row in the tables.
KNOWN_EXTRA = (
    *("user", "prompt_cache_retention", "prompt_cache_options", "stream_options", "context_management"),
    *("seed", "stop"),  # of Chat Completions; clients send them to this API too
)

#: The name of the row for all fields that have no row of their own.
OTHERS = "any other field"

#: How many unknown fields are named in warnings; more are only counted. A client can send any number of them.
_NAMED = 8


class Field(msgspec.Struct, frozen=True):
    """A setting of the request: its rule, and the function that acts on it (called only where the field is set)."""

    rule: Rule
    write: Callable[[RequestBuilder], None]


def ours(note: str) -> Field:
    """A setting that the gateway handles itself."""
    return Field(Rule("ours", note), lambda _: None)


def carried(name: str, wire: str | None = None) -> Field:
    """A setting that the API has too, maybe under the name `wire`."""
    note = "" if wire is None else f"As `{wire}`."

    def write(builder: RequestBuilder) -> None:
        builder.fields[wire or name] = builder.values[name]

    return Field(Rule("carried", note), write)


def dropped(name: str, why: str) -> Field:
    """A setting that the API does not have, and that the answer does not depend on."""
    return Field(Rule("dropped", f"{why[0].upper()}{why[1:]}."), lambda builder: builder.drop(name, why))


def passed(name: str) -> Field:
    """A field that is no setting and that the API has too: it is sent as it came."""

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
    """The fields that are not among `fields`, for an API all of whose fields are known: they are left out."""
    known = frozenset(fields)

    def write(builder: RequestBuilder) -> None:
        _drop_unknown(builder, [name for name in builder.settings.extra if name not in known])

    return Field(Rule("dropped", "This API has nothing like it."), write)


def obfuscation() -> Field:
    """`stream_options`, for an API whose stream becomes new events here."""

    def write(builder: RequestBuilder) -> None:
        options = msgspec.json.decode(builder.settings.extra["stream_options"])
        builder.drop_others("stream_options", options, frozenset({"include_obfuscation"}))

    return Field(Rule("ours", "Events are padded by providers of the API itself only."), write)


_DEFAULTS = msgspec.structs.asdict(Settings(model=""))
_SETTINGS = frozenset(Settings.__struct_fields__) - {"extra"}


def write_settings(builder: RequestBuilder, fields: Mapping[str, Field]) -> None:
    """Write every setting that differs from its default, and every other field of the request, in the table's order."""
    settings = builder.settings
    for name, field in fields.items():
        if name in _SETTINGS:
            there = builder.values[name] != _DEFAULTS[name]
        else:
            there = bool(settings.extra) if name == OTHERS else name in settings.extra
        if there:
            field.write(builder)
    builder.omit_refused()
