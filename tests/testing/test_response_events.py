"""The events that a double sends are those of the Responses API, in their order."""

from __future__ import annotations

import pytest

from segue.testing.protocol_checker import StreamChecker, Transport, check_response
from segue.testing.response_events import (
    Json,
    ResponseIdentity,
    called,
    response_events,
    response_object,
    said,
    thought,
)

IDENTITY = ResponseIdentity(create={"model": "m", "input": "Hi"}, response_id="resp_1", created_at=100)


def identified(*items: Json) -> list[Json]:
    return [{"id": f"item_{number}", **item} for number, item in enumerate(items)]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize(
    "output",
    [
        [],
        [said("A text that is longer than one piece.")],
        [said("")],
        [called("look", '{"at": "the sky and the sea"}', call_id="call_1")],
        [thought("Let me see what there is."), said("Nothing."), called("look", call_id="call_1")],
    ],
)
def test_the_stream_keeps_every_rule(transport: Transport, output: list[Json]) -> None:
    checker = StreamChecker(transport)
    for event in response_events(IDENTITY, identified(*output)):
        checker.feed(event)
    checker.finish()
    assert checker.response is not None
    assert checker.response["output"] == identified(*output)
    assert checker.response["status"] == "completed"


def test_a_text_comes_in_pieces() -> None:
    events = response_events(IDENTITY, identified(said("twelve chars")))
    assert [event["delta"] for event in events if event["type"].endswith(".delta")] == ["twelve c", "hars"]


def test_an_item_of_an_unknown_kind_comes_whole() -> None:
    item = {"id": "x_1", "type": "acme:search", "status": "completed"}
    kinds = [event["type"] for event in response_events(IDENTITY, [item])[2:-1]]
    assert kinds == ["response.output_item.added", "response.output_item.done"]


def test_the_object_echoes_the_request() -> None:
    create = {"model": "m", "instructions": "Be brief.", "temperature": 0.5, "store": False, "tools": None}
    identity = ResponseIdentity(create=create, response_id="resp_1", created_at=100)
    found = response_object(identity, "failed", [], error={"code": "server_error", "message": "No."})
    check_response(found)
    echoed = {key: found[key] for key in ("model", "instructions", "temperature", "store", "tools")}
    assert echoed == {**create, "tools": []}
    assert found["error"]["code"] == "server_error"
