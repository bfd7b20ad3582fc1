"""Fields that the configuration has for every request: what they win over, and what wins over them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.chat.request import ChatDialect
from segue.dialects.interface import Dialect
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.responses.request import ResponsesDialect
from segue.dialects.rules import OWN_FIELDS, Preset
from segue.protocol.codec import encode
from segue.protocol.requests import Settings
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    MESSAGES,
    RESPONSES,
    body,
    encode_items,
    render,
    replay,
    warnings,
)

USER = {"role": "user", "content": "go"}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
PRESET = Preset({"temperature": 0.25, "cache_salt": "s", "nested": {"a": [1]}}, withheld=frozenset({"id_slot"}))


def dialects(preset: Preset | None) -> list[Dialect]:
    return [
        ChatDialect(CHAT, preset=preset),
        ChatDialect(CHAT, openai=True, preset=preset),
        MessagesDialect(MESSAGES, preset=preset),
        ResponsesDialect(RESPONSES, preset=preset),
    ]


def asked(**fields: Any) -> Settings:  # noqa: ANN401 - any value of a setting
    return Settings(model="m", **fields)


@pytest.mark.parametrize("number", range(4))
def test_they_are_in_every_request_and_change_nothing_else(number: int) -> None:
    plain, preset = dialects(None)[number], dialects(PRESET)[number]
    assert body(preset, [USER]) == body(plain, [USER]) | dict(PRESET.fields)
    assert warnings(preset, [USER]) == warnings(plain, [USER])


@pytest.mark.parametrize("number", range(4))
def test_a_setting_of_the_request_wins(number: int) -> None:
    assert body(dialects(PRESET)[number], [USER], asked(temperature=0.5))["temperature"] == 0.5


@pytest.mark.parametrize("number", range(4))
def test_a_field_that_the_api_does_not_know_is_the_configurations(number: int) -> None:
    """A client cannot choose another's salt, or slot; and it is told."""
    extra = {name: Raw(encode(value)) for name, value in {"cache_salt": "mine", "id_slot": 3}.items()}
    dialect, wanted = dialects(PRESET)[number], asked(extra=extra)
    sent = body(dialect, [USER], wanted)
    assert (sent["cache_salt"], sent.get("id_slot")) == ("s", None)
    assert [said.split("'")[1] for said in warnings(dialect, [USER], wanted)] == ["cache_salt", "id_slot"]


def test_other_fields_of_a_request_go_on() -> None:
    wanted = asked(extra={"user": Raw(b'"u"'), "new": Raw(b"1")})
    sent = body(ResponsesDialect(RESPONSES, preset=Preset({"user": "ours"})), [USER], wanted)
    assert (sent["user"], sent["new"]) == ("u", 1)


@pytest.mark.parametrize("name", DIALECTS)
def test_what_the_gateway_always_writes_is_known_to_be_its_own(name: str) -> None:
    """A preset of that name would be lost, or break the request."""
    said = asked(tools=(TOOL,), tool_choice="required", instructions="Be brief.")
    sent = body(DIALECTS[name], [USER], said).keys() | body(DIALECTS[name], [USER]).keys()
    assert sent - OWN_FIELDS[DIALECTS[name].name] == set()


@pytest.mark.parametrize("name", DIALECTS)
def test_fields_are_added_without_copying_the_history(name: str) -> None:
    """To every piece but the last, which is short."""
    rendered = render(DIALECTS[name], replay(encode_items([USER | {"content": "x" * 5000}])))
    more = rendered.with_fields({"id_slot": 2, "a": "b"})
    assert json.loads(more.body) == json.loads(rendered.body) | {"id_slot": 2, "a": "b"}
    assert all(one is other for one, other in zip(more.pieces[:-1], rendered.pieces[:-1], strict=True))
    assert len(more.pieces[-1]) < 60
