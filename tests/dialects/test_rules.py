"""The rules about fields of a request: of its settings, and of the configuration's presets for every request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.chat.request import ChatDialect
from segue.dialects.chat.settings import chat_fields
from segue.dialects.interface import Dialect
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.messages.settings import MESSAGES_FIELDS
from segue.dialects.provider_families import FAMILIES
from segue.dialects.provider_profiles import PLAIN as UNKNOWN
from segue.dialects.responses.request import RESPONSES_FIELDS, ResponsesDialect
from segue.dialects.rules import (
    FATES,
    OTHERS,
    OWN_FIELDS,
    Field,
    Preset,
    RequestBuilder,
    Rule,
    carried,
    dropped,
    dropped_others,
    obfuscation,
    ours,
    passed,
    write_settings,
)
from segue.protocol.codec import encode
from segue.protocol.problems import unsupported
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    MESSAGES,
    RESPONSES,
    USER,
    body,
    settings,
    warnings,
)

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
PRESET = Preset({"temperature": 0.25, "cache_salt": "s", "nested": {"a": [1]}}, withheld=frozenset({"id_slot"}))


def dialects(preset: Preset | None) -> list[Dialect]:
    return [
        ChatDialect(CHAT, preset=preset),
        ChatDialect(CHAT, profile=FAMILIES["openai"].profile, preset=preset),
        MessagesDialect(MESSAGES, preset=preset),
        ResponsesDialect(RESPONSES, preset=preset),
    ]


@pytest.mark.parametrize("number", range(4))
def test_they_are_in_every_request_and_change_nothing_else(number: int) -> None:
    plain, preset = dialects(None)[number], dialects(PRESET)[number]
    assert body(preset, [USER]) == body(plain, [USER]) | dict(PRESET.fields)
    assert warnings(preset, [USER]) == warnings(plain, [USER])


@pytest.mark.parametrize("number", range(4))
def test_a_setting_of_the_request_wins(number: int) -> None:
    assert body(dialects(PRESET)[number], [USER], settings(temperature=0.5))["temperature"] == 0.5


@pytest.mark.parametrize("number", range(4))
def test_a_field_that_the_api_does_not_know_is_the_configurations(number: int) -> None:
    """A client cannot choose another's salt, or slot; and it is told."""
    extra = {name: Raw(encode(value)) for name, value in {"cache_salt": "mine", "id_slot": 3}.items()}
    dialect, wanted = dialects(PRESET)[number], settings(extra=extra)
    sent = body(dialect, [USER], wanted)
    assert (sent["cache_salt"], sent.get("id_slot")) == ("s", None)
    assert [said.split("'")[1] for said in warnings(dialect, [USER], wanted)] == ["cache_salt", "id_slot"]


def test_other_fields_of_a_request_go_on() -> None:
    wanted = settings(extra={"user": Raw(b'"u"'), "new": Raw(b"1")})
    sent = body(ResponsesDialect(RESPONSES, preset=Preset({"user": "ours"})), [USER], wanted)
    assert (sent["user"], sent["new"]) == ("u", 1)


@pytest.mark.parametrize("name", DIALECTS)
def test_what_the_gateway_always_writes_is_known_to_be_its_own(name: str) -> None:
    """A preset of that name would be lost, or break the request."""
    said = settings(tools=(TOOL,), tool_choice="required", instructions="Be brief.")
    sent = body(DIALECTS[name], [USER], said).keys() | body(DIALECTS[name], [USER]).keys()
    assert sent - OWN_FIELDS[DIALECTS[name].name] == set()


# ----------------------------------------------------------------------------------------------------- writing settings


def builder(**fields: Any) -> RequestBuilder:  # noqa: ANN401 - any setting
    return RequestBuilder("m", settings(**fields))


def written(table: Mapping[str, Field], **fields: Any) -> tuple[dict[str, Any], list[str]]:  # noqa: ANN401 - as above
    """The fields and warnings that a table makes of settings."""
    building = builder(**fields)
    write_settings(building, table)
    return building.fields, building.warnings


def test_what_was_left_out_is_said_once() -> None:
    building = builder()
    building.drop("a", "why")
    building.drop("b", "why")
    building.drop("a", "why")
    assert building.warnings == ["'a' was left out: why.", "'b' was left out: why."]


def test_the_first_reason_to_refuse_stays() -> None:
    building = builder()
    building.refuse("a", "do b")
    building.refuse("b", "do c")
    assert building.problem == unsupported("a", "do b")


def test_members_that_are_not_known_are_left_out_and_null_is_none() -> None:
    building = builder()
    building.drop_others("text", {"known": 1, "null": None, "x" * 50: 1}, frozenset({"known"}))
    assert building.warnings == [f"'text.{'x' * 40}' was left out: this API has nothing like it."]


def test_only_settings_that_differ_from_their_default_are_written_in_the_order_of_the_table() -> None:
    table = {
        "top_p": carried("top_p"),
        "temperature": carried("temperature", "heat"),
        "truncation": dropped("truncation", "it is cold"),
        "metadata": ours("It stands in the response."),
        "seed": passed("seed"),
        "stop": passed("stop"),
    }
    fields = {"temperature": 0.5, "top_p": 0.25, "truncation": "auto", "metadata": {"a": "b"}}
    got, warnings = written(table, **fields, extra={"seed": Raw(b"7")})
    assert list(got.items()) == [("model", "m"), ("top_p", 0.25), ("heat", 0.5), ("seed", Raw(b"7"))]
    assert warnings == ["'truncation' was left out: it is cold."]
    assert written(table, truncation="disabled", metadata={}) == ({"model": "m"}, [])


def test_the_rule_of_a_field_says_what_becomes_of_it() -> None:
    assert [
        field.rule for field in (carried("a"), carried("a", "b"), passed("a"), dropped("a", "it is"), ours("So."))
    ] == [
        Rule("carried"),
        Rule("carried", "As `b`."),
        Rule("carried"),
        Rule("dropped", "It is."),
        Rule("ours", "So."),
    ]
    assert set(FATES) == {"carried", "translated", "refused", "dropped", "ours"}


def test_fields_that_have_no_row_are_named_and_many_are_counted() -> None:
    table = {OTHERS: dropped_others(["known"])}
    assert written(table) == written(table, extra={"known": Raw(b"1")}) == ({"model": "m"}, [])
    _, warnings = written(table, extra={"known": Raw(b"1"), "x" * 70: Raw(b"1")})
    assert warnings == [f"'{'x' * 60}' was left out: this API has nothing like it."]
    _, warnings = written(table, extra={str(number): Raw(b"1") for number in range(8)})
    assert len(warnings) == 8
    _, warnings = written(table, extra={str(number): Raw(b"1") for number in range(10)})
    assert warnings[8:] == ["2 more fields of the request were left out: they are unknown here."]


def test_padding_of_events_is_the_providers_business_and_other_options_are_left_out() -> None:
    table = {"stream_options": obfuscation()}
    assert written(table, extra={"stream_options": Raw(b'{"include_obfuscation":false}')})[1] == []
    _, warnings = written(table, extra={"stream_options": Raw(b'{"include_obfuscation":false,"new":1}')})
    assert warnings == ["'stream_options.new' was left out: this API has nothing like it."]


def test_a_preset_owns_its_fields_and_those_that_it_withholds() -> None:
    assert [PRESET.owns(name) for name in ("temperature", "id_slot", "seed")] == [True, True, False]
    assert not Preset().owns("temperature")


# ----------------------------------------------------------------------------------------------------------- the tables

#: A value of each setting that differs from its default, for rows that do no more than carry or drop it.
VALUES: Mapping[str, object] = {
    "max_output_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "top_logprobs": 2,
    "max_tool_calls": 3,
    "truncation": "auto",
    "service_tier": "flex",
    "safety_identifier": "u",
    "prompt_cache_key": "k",
}
EXTRA = {
    "user": "u",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "x"},
    "context_management": {"a": 1},
    "seed": 7,
    "stop": ["END"],
}
TABLES: Mapping[str, Callable[[], Mapping[str, Field]]] = {
    "chat": lambda: chat_fields(UNKNOWN),
    "openai-chat": lambda: chat_fields(FAMILIES["openai"].profile),
    "messages": lambda: MESSAGES_FIELDS,
    "responses": lambda: RESPONSES_FIELDS,
}
ROWS = [(table, name) for table in TABLES for name in (*VALUES, *EXTRA)]


def write(table: str, name: str) -> tuple[Rule, RequestBuilder]:
    """A table's row, and what it makes of its setting alone."""
    fields = TABLES[table]()
    building = builder(**({name: VALUES[name]} if name in VALUES else {"extra": {name: Raw(encode(EXTRA[name]))}}))
    write_settings(building, fields)
    return fields[name].rule, building


@pytest.mark.parametrize("table", TABLES)
def test_each_row_has_a_fate_that_the_documentation_explains(table: str) -> None:
    rules = [field.rule for field in TABLES[table]().values()]
    assert {rule.fate for rule in rules} <= set(FATES)
    assert [rule for rule in rules if rule.fate != "carried" and not rule.note.endswith(".")] == []


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_a_row_that_drops_a_setting_warns_of_it_by_its_name_and_another_one_does_not(table: str, name: str) -> None:
    rule, building = write(table, name)
    warned = [warning.split("'")[1] for warning in building.warnings]
    assert warned == ([name] if rule.fate == "dropped" or (table, name) == ("messages", "service_tier") else [])


@pytest.mark.parametrize(("table", "name"), ROWS)
def test_a_row_that_carries_a_setting_writes_it_under_its_name_or_the_one_that_it_tells(table: str, name: str) -> None:
    rule, building = write(table, name)
    told = rule.note.split("`")[1] if rule.note.startswith("As `") else name
    sent = {key: value for key, value in building.fields.items() if key not in {"model", "logprobs"}}
    if rule.fate == "carried":
        value = VALUES.get(name, Raw(encode(EXTRA.get(name))))
        assert sent == {told: value}
