"""Profiles: their defaults, what a configuration may change in one, and what the dialects make of their fields."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import inspect as kinds

from segue.dialects.chat.request import FORMS, ChatDialect
from segue.dialects.interface import Dialect, Rendered
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.provider_families import FAMILIES, ProviderFamily
from segue.dialects.provider_profiles import PLAIN, ProviderProfile, dialect_of, override_cells
from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import ResponsesDialect
from segue.dialects.rules import Preset
from segue.dialects.sealed_reasoning import seal
from segue.protocol.requests import ENCRYPTED_REASONING
from tests.dialects.conversations import (
    CHAT,
    MESSAGES,
    RESPONSES,
    SETTINGS,
    USER,
    Json,
    Request,
    body,
    replay,
    settings,
    warnings,
)


def test_every_field_says_what_it_means() -> None:
    info = kinds.type_info(ProviderProfile)
    assert isinstance(info, kinds.StructType)
    for field in info.fields:
        assert isinstance(field.type, kinds.Metadata)
        assert str((field.type.extra_json_schema or {})["description"]).endswith(".")


def test_single_fields_of_a_row_can_be_replaced() -> None:
    openai = FAMILIES["openai"].profile
    assert override_cells(openai, {}, "chat") == openai
    changed = override_cells(openai, {"output_limit_field": "max_tokens", "chat_extensions": ["service_tier"]}, "chat")
    assert changed == ProviderProfile(chat_extensions=("service_tier",), system_messages="any", tool_name_length=64)


@pytest.mark.parametrize(
    ("cells", "dialect", "fault"),
    [
        (
            {"user_after_tool": True},
            "messages",
            "user_after_tool means nothing to the dialect 'messages'; leave it out",
        ),
        ({"nonsense": True}, "responses", "unknown key 'nonsense'; known keys: omitted_fields, encrypted_reasoning"),
        ({"user_after_tools": True}, "chat", "unknown key 'user_after_tools'; known keys: omitted_fields, "),
        ({"user_after_tool": "no"}, "chat", "user_after_tool: Expected `bool`, got `str`"),
        ({"text_parts": "one"}, "chat", "text_parts: Invalid enum value 'one'; it may be list, string"),
        (
            {"omitted_fields": ["stream"]},
            "chat",
            "omitted_fields[0]: Invalid enum value 'stream'; it may be stream_options, ",
        ),
        ({"omitted_fields": "stream_options"}, "chat", "omitted_fields: Expected `array`, got `str`"),
        ({"call_id_length": 8}, "chat", "call_id_length: Expected `int` >= 9"),
        ({"image_types": [1]}, "messages", "image_types[0]: Expected `str`, got `int`"),
    ],
)
def test_what_is_wrong_with_them_is_said(cells: dict[str, Any], dialect: str, fault: str) -> None:
    found = override_cells(PLAIN, cells, dialect)
    assert isinstance(found, str)
    assert found.startswith(fault)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_configuration_can_say_what_a_row_says(family: ProviderFamily) -> None:
    """Each value as TOML has it, and back to the default where that is a value too."""
    plain = msgspec.structs.asdict(PLAIN)
    for name in family.sources:
        dialect = dialect_of(name) or "chat"
        value = getattr(family.profile, name)
        written = msgspec.json.decode(msgspec.json.encode(value))
        changed = override_cells(PLAIN, {name: written}, dialect)
        assert isinstance(changed, ProviderProfile)
        assert getattr(changed, name) == value
        if plain[name] is not None:
            back = override_cells(family.profile, {name: plain[name]}, dialect)
            assert isinstance(back, ProviderProfile)
            assert getattr(back, name) == plain[name]


def test_some_fields_are_for_one_dialect() -> None:
    names = ("text_parts", "strict_tools", "encrypted_reasoning", "omitted_fields")
    assert [dialect_of(name) for name in names] == ["chat", "messages", "responses", None]


def test_profiles_that_differ_do_not_share_what_was_rendered() -> None:
    profiles = [PLAIN, *(family.profile for family in FAMILIES.values()), ProviderProfile(text_parts="string")]
    assert len({profile.cache_key for profile in profiles}) == len(set(map(msgspec.json.encode, profiles)))


# ------------------------------------------------------------------------------------------- fields that are left out


def dialect(name: str, profile: ProviderProfile = PLAIN, preset: Preset | None = None) -> Dialect:
    match name:
        case "chat":
            return ChatDialect(CHAT, profile=profile, preset=preset)
        case "messages":
            return MessagesDialect(MESSAGES, profile=profile, preset=preset)
        case _:
            return ResponsesDialect(RESPONSES, profile=profile, preset=preset)


OPENAI = FAMILIES["openai"].profile
#: Nothing of a history is left to be refused by a server with these.
TAKEN = {name: value for cells in FORMS.values() for name, value in cells.items()}
BARE = msgspec.structs.replace(PLAIN, **TAKEN)
OWN = [
    ("chat", BARE, {"stream_options", SEALED_REASONING}),
    (
        "chat",
        msgspec.structs.replace(OPENAI, **TAKEN),
        {"stream_options", "prompt_cache_key", SEALED_REASONING},
    ),
    ("messages", PLAIN, {"cache_control", "max_tokens", SEALED_REASONING}),
    ("responses", PLAIN, {"include", "prompt_cache_key", SEALED_REASONING}),
]


def render(made: Dialect, without: frozenset[str] = frozenset(), **fields: Any) -> Rendered:  # noqa: ANN401 - any setting
    request = Request(replay([msgspec.json.encode(USER)]), settings(**fields) if fields else SETTINGS)
    rendered = made.render(request, RenderCache(0), without=without)
    assert isinstance(rendered, Rendered)
    return rendered


def render_body(name: str, profile: ProviderProfile, request: Request) -> bytes:
    rendered = dialect(name, profile).render(request, RenderCache(0))
    assert isinstance(rendered, Rendered)
    return rendered.body


@pytest.mark.parametrize(("name", "profile", "own"), OWN)
def test_what_nobody_asked_for_can_be_left_out(name: str, profile: ProviderProfile, own: set[str]) -> None:
    """Since a provider refuses it, or since the profile says that it would; that is nobody's loss, so none is told."""
    whole = render(dialect(name, profile), instructions="Be brief.")
    assert whole.own_fields == own
    for field in own - {SEALED_REASONING, "max_tokens"}:
        assert f'"{field}"'.encode() in whole.body
        learned = render(dialect(name, profile), frozenset({field}), instructions="Be brief.")
        known = render(
            dialect(name, msgspec.structs.replace(profile, omitted_fields=(field,))), instructions="Be brief."
        )
        assert learned.body == known.body
        assert f'"{field}"'.encode() not in learned.body
        assert learned.own_fields == known.own_fields == own - {field}
        assert learned.warnings == known.warnings == ()


def test_reasoning_that_goes_back_is_our_own_too() -> None:
    """Without it, a request is as it is for a server that is known to refuse it."""
    items: list[Json] = [
        USER,
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
        | {"encrypted_content": seal(CHAT, '{"field":"reasoning_content"}')},
        {"role": "assistant", "content": "Yes."},
        USER,
    ]
    request = Request(replay(map(msgspec.json.encode, items)))
    cache = RenderCache(10**6)
    whole, bare = (
        dialect("chat").render(request, cache, without=without) for without in (frozenset(), frozenset({"reasoning"}))
    )
    assert isinstance(whole, Rendered)
    assert isinstance(bare, Rendered)
    assert (b"reasoning_content" in whole.body, b"reasoning_content" in bare.body) == (True, False)
    assert whole.own_fields - bare.own_fields == {"reasoning"}
    assert bare.body == render_body("chat", BARE, request)
    assert (whole.warnings, bare.warnings) == ((), ())


SEALED: list[tuple[str, str, str]] = [
    ("chat", CHAT, '{"details":[{"type":"reasoning.encrypted","data":"sealed-by-it"}]}'),
    ("messages", MESSAGES, '{"signature":"sealed-by-it"}'),
    ("messages", MESSAGES, '{"redacted":"sealed-by-it"}'),
    ("responses", RESPONSES, "sealed-by-it"),
]


@pytest.mark.parametrize(("name", "provider", "content"), SEALED)
@pytest.mark.parametrize("effort", [None, "low"])
def test_reasoning_that_its_provider_cannot_read_any_more_is_left_out(
    name: str, provider: str, content: str, effort: str | None
) -> None:
    """As that of another provider is, with the same warning; whether the model thinks in this turn or not."""
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    called = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": "x"}

    def items(maker: str) -> list[bytes]:
        mine = [USER, thought | {"encrypted_content": seal(maker, content)}, called, output]
        return list(map(msgspec.json.encode, mine))

    wanted = settings(reasoning={"effort": effort}) if effort else SETTINGS
    own, foreign = (Request(replay(items(maker)), wanted, "claude-sonnet-4-5") for maker in (provider, "another"))
    cache = RenderCache(10**6)
    whole = dialect(name).render(own, cache)
    unread = dialect(name).render(own, cache, without=frozenset({SEALED_REASONING}))
    expected = dialect(name).render(foreign, cache)
    assert isinstance(whole, Rendered)
    assert isinstance(unread, Rendered)
    assert isinstance(expected, Rendered)
    assert b"sealed-by-it" in whole.body
    assert (unread.body, unread.warnings) == (expected.body, expected.warnings)
    assert b"sealed-by-it" not in unread.body
    assert unread.warnings
    assert whole.own_fields - unread.own_fields == {SEALED_REASONING}


@pytest.mark.parametrize("name", ["chat", "responses"])
def test_what_a_client_asked_for_is_its_own(name: str) -> None:
    """A refusal that was learned changes nothing; a profile that omits the field does, and the client is told."""
    profile = OPENAI if name == "chat" else PLAIN
    wanted: Json = {"prompt_cache_key": "mine"}
    learned = render(dialect(name, profile), frozenset({"prompt_cache_key"}), **wanted)
    assert msgspec.json.decode(learned.body)["prompt_cache_key"] == "mine"
    assert "prompt_cache_key" not in learned.own_fields
    known = render(dialect(name, msgspec.structs.replace(profile, omitted_fields=("prompt_cache_key",))), **wanted)
    assert "prompt_cache_key" not in msgspec.json.decode(known.body)
    assert known.warnings == ("'prompt_cache_key' was left out: this provider does not take it.",)


def test_a_limit_that_is_refused_is_lowered_unless_a_client_set_it() -> None:
    """This API demands one, so that it cannot be left out."""
    refused = frozenset({"max_tokens"})
    whole, lower = render(dialect("messages")), render(dialect("messages"), refused)
    assert [json.loads(one.body)["max_tokens"] for one in (whole, lower)] == [32_000, 4096]
    assert whole.own_fields - lower.own_fields == refused
    own = render(dialect("messages"), refused, max_output_tokens=20_000)
    assert json.loads(own.body)["max_tokens"] == 20_000
    assert "max_tokens" not in own.own_fields


def test_what_the_configuration_sends_stays() -> None:
    profile = ProviderProfile(omitted_fields=("temperature", "top_p"))
    made = dialect("chat", profile, Preset({"temperature": 0.5}))
    wanted = settings(top_p=0.5)
    assert body(made, [USER], wanted)["temperature"] == 0.5
    assert "top_p" not in body(made, [USER], wanted)
    assert warnings(made, [USER], wanted) == ("'top_p' was left out: this provider does not take it.",)


def test_a_server_that_knows_no_store_is_not_told_of_it() -> None:
    assert body(dialect("responses"), [USER])["store"] is False
    assert "store" not in body(dialect("responses", ProviderProfile(omitted_fields=("store",))), [USER])


# ------------------------------------------------------------------------------------------------ encrypted reasoning


@pytest.mark.parametrize(
    ("asked", "model", "included", "own"),
    [
        ("learn", "gpt-4o", True, True),
        ("learn", "gpt-5", True, True),
        ("always", "gpt-4o", True, False),
        ("never", "gpt-5", False, False),
        *(("reasoning_models", name, True, True) for name in ("o3", "o4-mini", "gpt-5.5-codex", "gpt-oss-120b")),
        *(("reasoning_models", name, False, False) for name in ("gpt-4o", "gpt-35-turbo", "gpt-5-chat-latest", "m")),
    ],
)
def test_who_is_asked_for_encrypted_reasoning(asked: str, model: str, included: bool, own: bool) -> None:
    profile = msgspec.convert({"encrypted_reasoning": asked}, ProviderProfile)
    request = Request(replay([msgspec.json.encode(USER)]), model=model)
    rendered = dialect("responses", profile).render(request, RenderCache(0))
    assert isinstance(rendered, Rendered)
    assert (msgspec.json.decode(rendered.body).get("include") == [ENCRYPTED_REASONING]) is included
    assert ("include" in rendered.own_fields) is own


@pytest.mark.parametrize("asked", ["learn", "always"])
def test_a_client_that_asks_for_it_itself_is_not_overruled(asked: str) -> None:
    profile = msgspec.convert({"encrypted_reasoning": asked}, ProviderProfile)
    wanted: Json = {"include": ("file_search_call.results", ENCRYPTED_REASONING)}
    rendered = render(dialect("responses", profile), frozenset({"include"}), **wanted)
    assert msgspec.json.decode(rendered.body)["include"] == ["file_search_call.results", ENCRYPTED_REASONING]
    assert "include" not in rendered.own_fields


def test_what_else_a_client_includes_stays() -> None:
    wanted: Json = {"include": ("file_search_call.results",)}
    rendered = render(dialect("responses"), **wanted)
    assert msgspec.json.decode(rendered.body)["include"] == [ENCRYPTED_REASONING, "file_search_call.results"]
    rendered = render(dialect("responses"), frozenset({"include"}), **wanted)
    assert msgspec.json.decode(rendered.body)["include"] == ["file_search_call.results"]


def test_a_client_is_told_that_there_is_none() -> None:
    never = dialect("responses", ProviderProfile(encrypted_reasoning="never"))
    wanted = settings(include=(ENCRYPTED_REASONING,))
    assert "include" not in body(never, [USER], wanted)
    (warning,) = warnings(never, [USER], wanted)
    assert warning == "'include: reasoning.encrypted_content' was left out: this provider does not take it."
