"""The door of Chat Completions as a gateway uses it."""

from __future__ import annotations

from segue.dialects.chat.door import ChatDoor
from segue.dialects.chat.door_reply import ChatReplyWriter
from segue.dialects.chat.door_request import ChatRequest
from segue.dialects.chat.passed_reply import PassedReplyWriter
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS
from tests.dialects.chat.doors import asked, writer

BODY = b'{"model":"m","messages":[{"role":"user","content":"go"}]}'


def test_a_request_passes_only_where_the_upstream_speaks_the_api() -> None:
    door = ChatDoor()
    for model in ("m", "other"):
        read = door.read(BODY, speaks=model.__eq__, limits=DEFAULT_LIMITS)
        assert isinstance(read, ChatRequest)
        assert (read.create.native is not None) is (model == "m")
    assert isinstance(door.read(b"{}", speaks=lambda _: True, limits=DEFAULT_LIMITS), Problem)


def test_a_reply_is_written_or_passes_as_its_request_did() -> None:
    assert isinstance(writer(asked()), ChatReplyWriter)
    assert isinstance(writer(asked(native=True)), PassedReplyWriter)


def test_no_header_line_belongs_to_a_request() -> None:
    assert ChatDoor().passed_headers((("User-Agent", "x"), ("OpenAI-Beta", "y"))) == ()
