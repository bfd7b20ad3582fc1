"""The object that the compaction endpoint answers with."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from openresponses_types.types import CompactResource

from segue.protocol.codec import encode
from segue.protocol.compaction_object import as_output, compaction_of_response, encode_compaction, with_retained
from segue.protocol.ids import ResponseId
from segue.protocol.responses import EncodedResponse, Failure, usage
from tests.strategies import examples

IDENT = ResponseId(f"resp_{'0' * 40}")


def test_a_message_becomes_an_item_of_an_output() -> None:
    first, second = as_output([b'{"role":"user","content":"hi"}', b'{"id":"m","role":"system","content":[]}'], IDENT)
    assert msgspec.json.decode(first) == {
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
        "id": "msg_" + "0" * 40 + "0001",
        "type": "message",
        "status": "completed",
    }
    assert msgspec.json.decode(second) == {
        "id": "m",
        "role": "system",
        "content": [],
        "type": "message",
        "status": "completed",
    }


_texts = st.text(max_size=8)
_parts = st.fixed_dictionaries({"type": st.just("input_text"), "text": _texts})
_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "developer"]), "content": _texts | st.lists(_parts, max_size=2)},
    optional={"id": st.sampled_from(["msg_1", "x"]), "status": st.sampled_from(["completed", "incomplete", None])},
)


@given(st.lists(_messages, max_size=4))
@settings(max_examples=examples(200))
def test_the_object_is_what_the_document_says(given_messages: list[dict[str, object]]) -> None:
    output = as_output([encode(message) for message in given_messages], IDENT)
    whole = encode_compaction(IDENT, created_at=1.9, output=output, usage=usage(3, 2))
    decoded = msgspec.json.decode(whole)
    assert (decoded["created_at"], decoded["object"]) == (1, "response.compaction")
    assert [item["role"] for item in decoded["output"]] == [message["role"] for message in given_messages]
    assert all(item["id"] and isinstance(item["content"], list) for item in decoded["output"])
    CompactResource.model_validate(decoded)


def test_a_response_becomes_the_object() -> None:
    """The messages that stay are in its echo, so that it needs no history."""
    echo = with_retained(b'{"model":"m"}', [b'{"role":"user","content":"hi"}'])
    assert msgspec.json.decode(echo) == {"model": "m", "retained": [{"role": "user", "content": "hi"}]}
    start = (
        b'{"id":"%b","created_at":5,"status":"completed","usage":null,"output":[{"type":"compaction"}],'
        % IDENT.encode()
    )
    window = compaction_of_response(EncodedResponse(start, echo))
    assert isinstance(window, bytes)
    said, item = msgspec.json.decode(window)["output"]
    assert (said["content"][0]["text"], item) == ("hi", {"type": "compaction"})
    assert (msgspec.json.decode(window)["id"], msgspec.json.decode(window)["created_at"]) == (IDENT, 5)


def test_a_response_that_failed_becomes_none() -> None:
    start = b'{"id":"%b","created_at":5,"error":{"code":"x","message":"y"},"output":[],' % IDENT.encode()
    assert compaction_of_response(EncodedResponse(start, with_retained(b'{"model":"m"}', []))) == Failure("x", "y")
