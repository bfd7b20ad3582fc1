"""The last turn of a conversation as a request that needs no gateway, in the words of each API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from segue.config import ProviderDialect
from segue.gateway.turns.stateless_request import StatelessRequest, write_request
from segue.history.records import Record
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings, json_text
from segue.protocol.responses import encode_echo
from segue.testing.store_conformance import sample_record

USER = b'{"role":"user","content":"Hi"}'
SAID = b'{"type":"message","id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"Yes?"}]}'
SEALED = b'{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"segue:1:somebody:x"}'


def records(**settings: Any) -> list[Record]:  # noqa: ANN401 - any setting
    echo = encode_echo(Settings(model="m", instructions=json_text("Be kind."), **settings), store=True)
    first, second = sample_record("one", echo=echo), sample_record("two", "one", echo=echo)
    return [replace(first, input=(USER,), output=(SEALED, SAID)), replace(second, input=(USER,), output=(SAID,))]


def written(dialect: ProviderDialect, of: list[Record]) -> StatelessRequest:
    found = write_request(of, dialect)
    assert not isinstance(found, Problem)
    return found


@pytest.mark.parametrize(
    ("dialect", "path", "field", "roles"),
    [
        ("chat", "/chat/completions", "messages", ["system", "user", "assistant", "user"]),
        ("messages", "/messages", "messages", ["user", "assistant", "user"]),
        ("responses", "/responses", "input", ["user", "assistant", "user"]),
    ],
)
def test_it_has_the_whole_history_and_not_the_last_answer(
    dialect: ProviderDialect, path: str, field: str, roles: list[str]
) -> None:
    """And no reasoning that only a provider can read."""
    found = written(dialect, records())
    body = json.loads(bytes(found.body))
    assert (found.path, [one["role"] for one in body[field]], body["model"]) == (path, roles, "m")
    assert b"somebody" not in bytes(found.body)


def test_it_has_the_settings_that_were_sent_and_no_defaults() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    body = json.loads(bytes(written("chat", records(tools=[tool], max_output_tokens=9)).body))
    assert body["tools"][0]["function"] == {"name": "f", "parameters": {"type": "object"}}
    assert not body.keys() & {"temperature", "top_p", "service_tier", "response_format"}


def test_what_an_api_cannot_say_is_refused() -> None:
    assert isinstance(
        write_request(records(tools=[{"type": "web_search"}], tool_choice={"type": "web_search"}), "chat"), Problem
    )
