"""The last turn of a conversation as a request that needs no gateway, in the words of each API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from segue.config import ProviderDialect
from segue.gateway.admin.metrics import CompactionMeter
from segue.gateway.turns.compaction import Compactions, CompactionSettings
from segue.gateway.turns.stateless_request import StatelessRequest, write_request
from segue.history.records import Record
from segue.history.sealed_summaries import SummarySealer
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings, json_text
from segue.protocol.responses import encode_echo
from segue.testing.store_conformance import sample_record

USER = b'{"role":"user","content":"Hi"}'
SAID = b'{"type":"message","id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"Yes?"}]}'
COMPACTIONS = Compactions(
    SummarySealer([b"s" * 32]),
    CompactionSettings(prompt="p", lead="Summary:", threshold_tokens=1000, summary_tokens=1000, retained_bytes=1000),
    entropy=bytes,
    meter=CompactionMeter(CollectorRegistry()),
)
SEALED = b'{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"segue:1:somebody:x"}'


def records(**settings: Any) -> list[Record]:  # noqa: ANN401 - any setting
    echo = encode_echo(Settings(model="m", instructions=json_text("Be kind."), **settings), store=True)
    first, second = sample_record("one", echo=echo), sample_record("two", "one", echo=echo)
    return [replace(first, input=(USER,), output=(SEALED, SAID)), replace(second, input=(USER,), output=(SAID,))]


def written(dialect: ProviderDialect, of: list[Record]) -> StatelessRequest:
    found = write_request(of, dialect, COMPACTIONS)
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
        write_request(records(tools=[{"type": "web_search"}], tool_choice={"type": "web_search"}), "chat", COMPACTIONS),
        Problem,
    )


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@pytest.mark.parametrize("in_input", [True, False])
def test_a_history_that_was_compacted_begins_with_its_summary(dialect: ProviderDialect, *, in_input: bool) -> None:
    """Nobody else could read the item."""
    first, second = records()
    item = b'{"type":"compaction","encrypted_content":"%s"}' % COMPACTIONS.seal(first.tenant, "It was said.").encode()
    if in_input:
        second = replace(second, input=(item, *second.input))
    else:
        first = replace(first, output=(*first.output, item))
    body = bytes(written(dialect, [first, second]).body)
    assert b"It was said." in body
    assert b"Yes?" not in body
    assert b"segue.c1" not in body


def test_items_that_change_settings_do_so_where_the_api_has_no_such_items() -> None:
    first, second = records()
    more = b'{"type":"additional_tools","tools":[{"type":"function","name":"f","parameters":{"type":"object"}}]}'
    of = [replace(first, input=(more, *first.input)), second]
    assert [tool["function"]["name"] for tool in json.loads(bytes(written("chat", of).body))["tools"]] == ["f"]
    body = json.loads(bytes(written("responses", of).body))
    assert "tools" not in body
    assert body["input"][0]["type"] == "additional_tools"
    nameless = more.replace(b'"name":"f",', b"")
    assert isinstance(write_request([replace(first, input=(nameless,)), second], "chat", COMPACTIONS), Problem)
