"""A create is joined from bytes, and is what a gateway takes for the request that was meant."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.client.create_request import CreateOptions, encode_static, write_create
from segue.client.settings import SessionSettings
from segue.protocol.items import user_message
from segue.protocol.requests import Create, parse_create


def create(settings: SessionSettings, **parts: Any) -> dict[str, Any]:  # noqa: ANN401 - the parts of a create
    body = write_create(encode_static(settings), [user_message("hi")], **parts)
    parsed = parse_create(body, transport="http")
    assert isinstance(parsed, Create)
    found: dict[str, Any] = msgspec.json.decode(body)
    assert found.pop("input") == [msgspec.json.decode(user_message("hi"))]
    return found


def test_a_create_has_the_members_of_its_session_and_no_others() -> None:
    tool = {"type": "function", "name": "f", "parameters": {}}
    settings = SessionSettings(
        model="m", instructions="be brief", tools=(tool,), store=True, fields={"temperature": 0.5}
    )
    wanted = {"model": "m", "store": True, "instructions": "be brief", "tools": [tool], "temperature": 0.5}
    assert create(settings) == wanted
    assert create(SessionSettings(model="m", store=True)) == {"model": "m", "store": True}


def test_what_a_turn_adds() -> None:
    options = CreateOptions(idempotency_key="k", resume=True)
    found = create(
        SessionSettings(model="m", store=True), previous_response_id="resp_1", generate=False, options=options
    )
    assert found == {
        "model": "m",
        "store": True,
        "generate": False,
        "segue": {"idempotency_key": "k", "resume": True},
        "previous_response_id": "resp_1",
    }
    assert "segue" not in create(SessionSettings(model="m"), options=CreateOptions())


def test_encrypted_reasoning_is_asked_for_where_nobody_stores_it() -> None:
    """A replay needs it; who asked for it gets it once, and who did not can do without."""
    sealed = "reasoning.encrypted_content"
    assert create(SessionSettings(model="m"))["include"] == [sealed]
    assert "include" not in create(SessionSettings(model="m"), own_include=False)
    asked = SessionSettings(model="m", fields={"include": [sealed]})
    assert create(asked, own_include=False)["include"] == [sealed]
    assert not encode_static(asked).wants_reasoning
    other = SessionSettings(model="m", fields={"include": ["message.output_text.logprobs"]})
    assert create(other)["include"] == ["message.output_text.logprobs", sealed]


@pytest.mark.parametrize("name", ["input", "stream", "previous_response_id", "segue", "conversation", "background"])
def test_members_that_a_session_needs_for_itself_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        encode_static(SessionSettings(model="m", fields={name: True}))


def test_nothing_of_the_history_is_encoded_again() -> None:
    item = b'{ "type" : "odd",\t"a":1e0 }'
    assert item in write_create(encode_static(SessionSettings(model="m")), [item, item])
