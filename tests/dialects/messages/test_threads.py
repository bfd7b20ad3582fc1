"""Message threads, as far as a request alone tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.messages.threads import (
    KnownContext,
    ThreadAsk,
    given_context,
    known_context,
    may_have_thread,
    previous_message,
    read_thread,
)
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits
from segue.protocol.requests import ThreadContext

Json = Any
NULL = Raw(b"null")


def raw(value: Json) -> Raw:
    return NULL if value is None else Raw(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("thread", "asked"),
    [
        (None, None),
        ({"type": "create"}, ThreadAsk()),
        ({"type": "create", "previous_message_id": None}, ThreadAsk()),
        ({"type": "continue", "previous_message_id": "msg_1"}, ThreadAsk("msg_1")),
    ],
)
def test_a_thread_begins_or_goes_on(thread: Json, asked: ThreadAsk | None) -> None:
    assert read_thread(raw(thread)) == asked


@pytest.mark.parametrize(
    "thread",
    [
        *({}, 1, "create", [], {"type": "resume"}, {"type": "create", "previous_message_id": "msg_1"}),
        *({"type": "continue"}, {"type": "continue", "previous_message_id": 1}, {"type": "create", "id": "x"}),
    ],
)
def test_what_is_not_known_is_refused(thread: Json) -> None:
    problem = read_thread(raw(thread))
    assert isinstance(problem, Problem)
    assert problem.code == "thread_unsupported_request"


@pytest.mark.parametrize(
    ("body", "message_id"),
    [
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "msg_1"),
        ({"thread": {"type": "create"}}, None),
        ({"thread": {"type": "x"}}, None),
        ({"messages": ["thread"]}, None),
        ([{"thread": 1}], None),
    ],
)
def test_the_message_that_a_request_goes_on_from_is_found(body: Json, message_id: str | None) -> None:
    assert previous_message(json.dumps(body).encode(), DEFAULT_LIMITS) == message_id


def test_a_body_is_bounded_before_it_is_looked_into() -> None:
    body = json.dumps({"thread": {"type": "continue", "previous_message_id": "msg_1"}, "x": [0] * 9}).encode()
    assert may_have_thread(body)
    assert not may_have_thread(b'{"threads":1}')
    assert previous_message(body, RequestLimits(values=3)) is None


def text(said: str, **fields: object) -> Json:
    return {"type": "text", "text": said, **fields}


MARK = {"cache_control": {"type": "ephemeral"}}
BILLING = text("x-anthropic-billing-header: cch=1;")
NEWER = text("x-anthropic-billing-header: cch=9;")
TOOL = {"name": "f", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("held", "given", "known", "fields"),
    [
        (None, None, None, None),
        ("S", None, "S", "S"),
        ("S", "S", "S", None),
        ("S", [text("S", **MARK)], [text("S", **MARK)], None),
        ([text("S", **MARK)], [text("S")], [text("S")], None),
        ([BILLING, text("S")], [NEWER, text("S", **MARK)], [NEWER, text("S", **MARK)], None),
        ([BILLING, text("S")], [NEWER], [NEWER, text("S")], [NEWER, text("S")]),
        (None, [NEWER], [NEWER], [NEWER]),
        (None, "", "", None),
        (None, [], [], None),
    ],
)
def test_the_system_prompt_is_kept_and_may_be_repeated(held: Json, given: Json, known: Json, fields: Json) -> None:
    """With other marks, and with another block for billing; that block alone stands in the place of the old one."""
    found = known_context(given_context(raw(held), NULL), raw(given), NULL)
    assert isinstance(found, KnownContext)
    assert json.loads(bytes(found.context.system)) == known
    assert {name: json.loads(value) for name, value in found.fields.items()} == (
        {} if fields is None else {"system": fields}
    )


def test_tools_are_kept_and_may_be_repeated() -> None:
    held = ThreadContext(tools=raw([TOOL]))
    for given, fields in ((None, {"tools": bytes(raw([TOOL]))}), ([{**TOOL, **MARK}], {})):
        found = known_context(held, NULL, raw(given))
        assert isinstance(found, KnownContext)
        assert found.fields == fields


@pytest.mark.parametrize(
    ("system", "tools", "named"),
    [
        ("T", None, "system"),
        ("", None, "system"),
        ([text("S"), text("T")], None, "system"),
        (None, [], "tools"),
        (None, [{**TOOL, "name": "g"}], "tools"),
        ("T", [TOOL, TOOL], "system, tools"),
        (["S"], None, "system"),
    ],
)
def test_what_differs_is_named(system: Json, tools: Json, named: str) -> None:
    """Clients read the names out of the message."""
    problem = known_context(ThreadContext(raw("S"), raw([TOOL])), raw(system), raw(tools))
    assert isinstance(problem, Problem)
    assert problem.code == "thread_fingerprint_mismatch"
    assert f"differing field(s): {named}." in problem.message


def test_what_cannot_be_read_is_as_nothing() -> None:
    """The request itself is refused for it elsewhere."""
    assert isinstance(known_context(ThreadContext(), Raw(b'"\\ud800"'), NULL), KnownContext)
