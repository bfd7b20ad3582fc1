"""What a provider's server does differently from the API that it speaks: one field for each quirk.

A profile is data that a dialect reads while it writes requests. The default of every field means the plain API. Which
provider has which quirks is a table (`provider_families`); a configuration names a provider, or changes single fields
in `[upstream.compat]`. Not here: how a dialect acts on a field, and what is learned from a provider's refusals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from segue.protocol.codec import encode

#: Fields of OpenAI's Chat Completions API that most servers that imitate it do not take.
ChatExtension = Literal[
    "verbosity", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "file_id"
]
#: Fields that a request is complete without, by their names in the provider's API.
OptionalField = Literal[
    "stream_options",
    "prompt_cache_key",
    "cache_control",
    "include",
    "store",
    "parallel_tool_calls",
    "max_output_tokens",
    "max_tool_calls",
    "service_tier",
    "safety_identifier",
    "prompt_cache_retention",
    "verbosity",
    "truncation",
    "user",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "reasoning_effort",
]


class ProviderProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The quirks of a provider's server. The defaults are those of a server that nothing is known about."""

    omitted_fields: Annotated[
        tuple[OptionalField, ...],
        Meta(
            description="Fields that it refuses, which are left out of every request; if a client asked for one, "
            "`warnings` says so."
        ),
    ] = ()
    chat_extensions: Annotated[
        tuple[ChatExtension, ...],
        Meta(description="chat: fields of OpenAI's own API that it takes too; others are left out."),
    ] = ()
    output_limit_field: Annotated[
        Literal["max_tokens", "max_completion_tokens"],
        Meta(description="chat: the field that holds `max_output_tokens`."),
    ] = "max_tokens"
    system_messages: Annotated[
        Literal["any", "first"],
        Meta(
            description="chat: where messages of role `system` may stand: anywhere, or one at the start, which every "
            "template takes."
        ),
    ] = "first"
    text_parts: Annotated[
        Literal["list", "string"],
        Meta(
            description="chat: how a text of several parts is sent: as a list of parts, or as one string, which every "
            "server takes."
        ),
    ] = "string"
    user_after_tool: Annotated[
        bool, Meta(description="chat: whether a message of the user may stand right behind one of a tool.")
    ] = True
    media_in_tool_outputs: Annotated[
        bool,
        Meta(
            description="chat: whether a message of a tool may hold images; else they stand in a message of the user's "
            "behind it."
        ),
    ] = False
    call_id_characters: Annotated[
        Literal["any", "alphanumeric", "alphanumeric_-"],
        Meta(description="chat: the characters that the id of a tool call may have (letters and digits are ASCII)."),
    ] = "any"
    call_id_length: Annotated[
        Annotated[int, Meta(ge=9)] | None,
        Meta(description="chat: the longest id of a tool call that it takes; 40 by default, as at OpenAI."),
    ] = None
    call_id_length_exact: Annotated[
        bool, Meta(description="chat: whether each id must have exactly `call_id_length` characters.")
    ] = False
    tool_name_length: Annotated[
        Annotated[int, Meta(ge=32)] | None,
        Meta(
            description="chat: the longest name of a tool that it takes in a history, where it takes letters, digits, "
            "`_` and `-` only; without one, names go as they are."
        ),
    ] = None
    named_tool_choice: Annotated[
        bool,
        Meta(
            description="chat: whether `tool_choice` may name a tool; where not, the model is offered only that tool "
            "and must call one."
        ),
    ] = True
    returned_reasoning: Annotated[
        Literal["as_received", "never"],
        Meta(description="chat: whether its own reasoning goes back to it, in the field that it came in."),
    ] = "as_received"
    call_reasoning_field: Annotated[
        str,
        Meta(
            description="chat: the field of reasoning that each message with calls must have, where another model made "
            "the calls too."
        ),
    ] = ""
    call_reasoning_filler: Annotated[
        str, Meta(description="chat: what stands in that field where there is no reasoning.")
    ] = ""
    foreign_call_signature: Annotated[
        str,
        Meta(
            description="chat: the `thought_signature` that it wants with the first call of a message that another "
            "model made."
        ),
    ] = ""
    encrypted_reasoning: Annotated[
        Literal["learn", "always", "reasoning_models", "never"],
        Meta(
            description="responses: which models are asked for `reasoning.encrypted_content`: all until one refuses "
            "it, all, those whose name is known to be of a model that reasons, or none."
        ),
    ] = "learn"
    image_types: Annotated[
        tuple[str, ...] | None,
        Meta(description="messages: the media types of images that it takes; without them, those of Anthropic."),
    ] = None
    strict_tools: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="messages: how many tools of a request may be `strict`, others are sent without it; 20 by "
            "default, as at Anthropic."
        ),
    ] = None

    @property
    def cache_key(self) -> str:
        """What distinguishes histories that are rendered for this profile from those for another."""
        return encode(self).decode()


_DIALECT = re.compile("(chat|messages|responses): ")

#: A server that nothing is known about.
PLAIN = ProviderProfile()


def override_cells(profile: ProviderProfile, cells: Mapping[str, Any], dialect: str) -> ProviderProfile | str:
    """Return a profile with some fields replaced by what a configuration holds, or what is wrong with that.

    A field that means nothing to `dialect` would have no effect, so it is a mistake.
    """
    for name in cells:
        if name not in ProviderProfile.__struct_fields__:
            known = (name for name in ProviderProfile.__struct_fields__ if dialect_of(name) in (None, dialect))
            return f"unknown key {name!r}; known keys: {', '.join(known)}"
        if dialect_of(name) not in (None, dialect):
            return f"{name} means nothing to the dialect {dialect!r}; leave it out"
    try:
        return msgspec.convert({**msgspec.structs.asdict(profile), **cells}, ProviderProfile)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        words = _words_of(path.rstrip("`").partition("[")[0])
        return f"{path.rstrip('`')}: {what}{'; it may be ' if words else ''}{', '.join(words)}"


def dialect_of(name: str) -> str | None:
    """Return the one dialect that a field is for, which its description begins with; None if it is for all."""
    _, meta = get_args(get_type_hints(ProviderProfile, include_extras=True)[name])
    found = _DIALECT.match(meta.description)
    return None if found is None else found[1]


def _words_of(name: str) -> Sequence[str]:
    """Return the words that a field may hold, if it holds words of a closed set."""
    kind = get_type_hints(ProviderProfile)[name]
    members = get_args(kind) if get_origin(kind) is tuple else (kind,)
    return [word for member in members for word in get_args(member) if isinstance(word, str)]
