"""A conversation comes back from its file byte for byte, and no file that somebody made up is stumbled over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # the package ships no types
from msgspec.structs import replace

from segue.history.chains import NativeTurn
from segue.history.conversation_file import (
    Imported,
    NamedConversation,
    ReadFile,
    items_behind,
    living,
    read_conversation,
    write_conversation,
)
from segue.history.records import ChainLink, Record, encode_head
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.items import Input
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits
from segue.protocol.requests import Settings, json_text
from segue.protocol.responses import IncompleteDetails, ResponseObjectHead, encode_echo, usage
from segue.testing.store_conformance import link_of
from tests.strategies import any_text, examples, json_values

SCHEMA = Draft202012Validator(json.loads(Path("docs/spec/conversation-1.schema.json").read_text(encoding="utf-8")))
WHO = Imported("bob", 2000.0, 9000.0)
ECHOES = [encode_echo(Settings(model=model, instructions=json_text("Be kind.")), store=True) for model in ("m", "n")]
CALL = b'{"type":"function_call",  "call_id":"c1","name":"f","arguments":"{}"}'
ANSWER = b'{"call_id":"c1","type":"function_call_output","output":"4\\u0032"}'
HELLO = b'{ "role" : "user", "content": "h\xc3\xa9llo" }'
SAID = b'{"type":"message","role":"assistant","content":[{"type":"output_text","text":"hi"}],"id":"msg_9"}'


NATIVE = NativeTurn("messages", b'{"role":"user", "content":"h\\u00e9" } ,{"role":"assistant","content":[]}')
THREAD = ECHOES[0][:-1] + b',"thread":{"system":"a\\u0062", "tools":null}}'


def ident(number: int) -> ResponseId:
    return ResponseId(f"resp_{0:08x}{number:032x}")


def record(number: int, given: tuple[bytes, ...], output: tuple[bytes, ...], **fields: Any) -> Record:  # noqa: ANN401 - fields of the record
    parent = ident(number - 1) if number else None
    head = ResponseObjectHead(id=ident(number), created_at=1000 + number, status="completed", usage=usage(3, 4))
    made = Record(
        tenant="alice",
        id=ident(number),
        parent_id=parent,
        created_at=1000.0 + number,
        expires_at=5000.0,
        head=encode_head(replace(head, previous_response_id=parent)),
        echo=ECHOES[0],
        input=given,
        output=output,
        calls=frozenset(),
    )
    return replace(made, **fields)


RECORDS = [
    record(0, (HELLO,), (CALL,), calls=frozenset({"c1"})),
    record(1, (ANSWER,), (SAID,), echo=ECHOES[1]),
    record(2, (b'{"type":"weather_2"}', HELLO), (), native=NATIVE, echo=THREAD),
]


def read(data: bytes, limits: RequestLimits = DEFAULT_LIMITS) -> list[Record]:
    found = read_conversation(data, WHO, limits)
    assert not isinstance(found, Problem), found
    assert found.conversation is None
    return list(found.turns)


def test_a_conversation_comes_back_as_it_was() -> None:
    """For whoever imports it, and for as long as that gateway keeps responses."""
    written = write_conversation(RECORDS, 1500.5)
    assert read(written) == [replace(one, tenant="bob", expires_at=9000.0) for one in RECORDS]
    file = json.loads(written)
    SCHEMA.validate(file)
    assert (file["id"], file["exported_at"], len(file["settings"])) == (ident(2), 1500, 3)


_items = st.lists(
    st.sampled_from(
        [HELLO, SAID, CALL, b'{"type":"x","a":[1, {"b":null}]}', b'{"role":"user","content":"\\ud83d\\ude00"}']
    ),
    max_size=3,
)


@settings(max_examples=examples(200))
@given(st.lists(st.tuples(_items, _items, st.sampled_from(ECHOES)), min_size=1, max_size=5))
def test_every_conversation_comes_back(turns: list[tuple[list[bytes], list[bytes], bytes]]) -> None:
    records = [record(n, tuple(given), tuple(output), echo=echo) for n, (given, output, echo) in enumerate(turns)]
    written = write_conversation(records, 0.0)
    SCHEMA.validate(json.loads(written))
    found = read(written)
    assert [(one.id, one.parent_id, one.head, one.echo) for one in found] == [
        (one.id, one.parent_id, one.head, one.echo) for one in records
    ]
    assert [(one.input, one.output) for one in found] == [(one.input, one.output) for one in records]
    assert write_conversation(found, 0.0) == written


NAMED = NamedConversation(
    ConversationId("conv_" + "0" * 40), 1500.0, b'{"a":"b"}', Input((HELLO, CALL), frozenset({"c1"}))
)


def read_named(data: bytes) -> ReadFile:
    found = read_conversation(data, WHO, DEFAULT_LIMITS)
    assert isinstance(found, ReadFile), found
    return found


def test_a_named_conversation_comes_back_with_what_is_behind_its_last_turn() -> None:
    """Its bytes too; it may have no turns at all."""
    for records in (RECORDS, []):
        written = write_conversation(records, 0.0, NAMED)
        SCHEMA.validate(json.loads(written))
        found = read_named(written)
        assert found.conversation is not None
        assert (found.conversation.id, found.conversation.metadata) == (NAMED.id, NAMED.metadata)
        assert found.conversation.created_at == 1500
        assert found.conversation.items.items == NAMED.items.items
        assert [one.id for one in found.turns] == [one.id for one in records]
        items = [item for one in records for item in (*one.input, *one.output)]
        assert found.items() == [*items, HELLO, CALL]
        assert json.loads(written)["version"] == 2
    plain = read_conversation(write_conversation(RECORDS, 0.0), WHO, DEFAULT_LIMITS)
    assert isinstance(plain, ReadFile)
    assert len(plain.items()) == 6


def test_a_named_conversation_has_the_bounds_of_a_request() -> None:
    written = write_conversation(RECORDS, 0.0, NAMED)
    assert isinstance(read_conversation(written, WHO, RequestLimits(7, 10_000)), Problem)
    assert isinstance(read_conversation(written, WHO, RequestLimits(8, 10_000)), ReadFile)


def test_what_is_behind_the_last_record_is_found() -> None:
    first, second, third = RECORDS
    links = [link(first), link(second, alive=False), link(third, alive=False)]
    assert items_behind(links, {first.id: first}) == (*second.input, *second.output, *third.input)
    assert items_behind(links, {third.id: third}) == ()
    assert items_behind(links[:1], {}) == (*first.input, *first.output)


def link(one: Record, *, alive: bool = True) -> ChainLink:
    return replace(link_of(one), alive=alive)


def test_what_was_deleted_is_part_of_the_turn_behind_it() -> None:
    """Its id is gone; what the model was sent is the same."""
    first, second, third = RECORDS
    left = living([link(first, alive=False), link(second), link(third)], {second.id: second, third.id: third})
    assert left == [
        replace(second, parent_id=None, input=(*first.input, *first.output, *second.input), calls=frozenset({"c1"})),
        replace(third, parent_id=second.id),
    ]
    assert [one.id for one in read(write_conversation(left, 0.0))] == [second.id, third.id]
    between = living([link(first), link(second, alive=False), link(third)], {first.id: first, third.id: third})
    assert [(one.parent_id, one.input) for one in between] == [
        (None, first.input),
        (first.id, (*second.input, *second.output, *third.input)),
    ]


def test_the_words_of_a_thread_go_along_if_all_of_it_is_there_in_them() -> None:
    """What was deleted included; else the items are all that is known."""
    first, second = replace(RECORDS[0], native=NATIVE), replace(RECORDS[1], native=NATIVE)
    (kept,) = living([link(first, alive=False), link(second)], {second.id: second})
    assert kept.native == NativeTurn("messages", NATIVE.messages + b"," + NATIVE.messages)
    (kept,) = living([link(RECORDS[0], alive=False), link(second)], {second.id: second})
    assert kept.native is None


def file(**changes: object) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(write_conversation(RECORDS, 0.0))
    return {**made, **changes}


def turn(number: int = 0, **changes: object) -> dict[str, Any]:
    made: dict[str, Any] = file()["turns"][number]
    return {**made, **changes}


def head(**changes: object) -> dict[str, Any]:
    made: dict[str, Any] = turn()["response"]
    return {**made, **changes}


def echo(**changes: object) -> dict[str, Any]:
    return {**json.loads(ECHOES[0]), **changes}


def named(**changes: object) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(write_conversation(RECORDS, 0.0, NAMED))
    return {**made, "conversation": {**made["conversation"], **changes}}


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        (file(format="other"), "format"),
        (file(version=3), "version"),
        (named(id="conv_1"), "conversation.id"),
        (named(id="conv_" + "1" * 40), "conversation.id"),
        (named(items="hi"), "conversation.items"),
        (named(items=[{"type": "function_call_output", "call_id": "c9", "output": ""}]), "conversation.items"),
        (named(metadata={"a": 1}), "conversation.metadata[...]"),
        (file(turns=[turn(response=head(conversation={"id": "conv_1"}))]), "turns[0].response"),
        (file(version="1"), "version"),
        (file(turns=[]), "turns"),
        (file(turns=[turn(1)]), "turns[0].input"),
        (file(turns=[turn(), turn()]), "turns[1].response.id"),
        (file(turns=[turn(response=head(id="resp_x"))]), "turns[0].response.id"),
        (file(turns=[turn(), turn(response=head(id="resp_" + "1" * 40))]), "turns[1].response.id"),
        (file(turns=[turn(response=head(status="failed"))]), "turns[0].response.status"),
        (file(turns=[turn(response=head(status="in_progress"))]), "turns[0].response.status"),
        (file(turns=[turn(response=head(error={"code": "a", "message": "b"}))]), "turns[0].response.status"),
        (file(turns=[turn(response=head(object="thing"))]), "turns[0].response"),
        (file(turns=[turn(response=head(previous_response_id="x"))]), "turns[0].response"),
        (file(turns=[turn(response=head(warnings=["w"] * 1001))]), "turns[0].response.warnings"),
        (file(turns=[turn(response=head(usage=1))]), "turns[0].response.usage"),
        (file(turns=[turn(settings=3)]), "turns[0].settings"),
        (file(turns=[turn(settings=-1)]), "turns[0].settings"),
        (file(turns=[turn(input="hello")]), "turns[0].input"),
        (file(turns=[turn(output=[{"type": "item_reference", "id": "msg_1"}])]), "turns[0].output"),
        (file(turns=[turn(output=[{"text": "no type"}])]), "turns[0].output"),
        (file(turns=[turn(input=[{"type": "message", "role": "user", "content": 1}])]), "turns[0].input"),
        (file(turns=[turn(native={"dialect": "a\n", "messages": []})]), "turns[0].native.dialect"),
        (file(turns=[turn(native={"dialect": "messages", "messages": [1]})]), "turns[0].native.messages[0]"),
        (file(turns=[turn(native={"dialect": "messages", "messages": {}})]), "turns[0].native.messages"),
        (file(settings=[echo(thread=1)]), "settings[0].thread"),
        (file(settings=[echo(tools=[{"type": "function"}])]), "settings[0].tools[0].name"),
        (file(settings=[echo(model=1)]), "settings[0].model"),
        (file(settings=[echo(status="completed")]), "settings[0].status"),
        (file(settings=[echo(output=[])]), "settings[0].output"),
        (file(settings=[{"model": "m"}]), "settings[0].instructions"),
    ],
)
def test_a_file_that_cannot_be_is_refused(changed: dict[str, Any], param: str) -> None:
    found = read_conversation(json.dumps(changed).encode(), WHO, DEFAULT_LIMITS)
    assert isinstance(found, Problem)
    assert found.param == param


def test_what_it_does_not_know_of_settings_is_kept_and_of_turns_is_not() -> None:
    changed = file(settings=[echo(new=[1.5]), echo()], extra=1, turns=[turn(extra=1)])
    (found,) = read(json.dumps(changed).encode())
    assert json.loads(found.echo) == echo(new=[1.5])


def test_a_turn_of_the_future_was_made_now() -> None:
    """And an incomplete one can be continued as well."""
    changed = file(
        turns=[turn(response=head(created_at=10**12, status="incomplete", incomplete_details={"reason": "cut"}))]
    )
    (found,) = read(json.dumps(changed).encode())
    assert found.created_at == 2000.0
    assert IncompleteDetails("cut") == IncompleteDetails(json.loads(found.head)["incomplete_details"]["reason"])


def test_the_limits_of_a_request_hold_for_the_whole_file() -> None:
    written = write_conversation(RECORDS, 0.0)
    assert len(read(written, RequestLimits(items=6))) == 3
    for limits in (RequestLimits(items=5), RequestLimits(items=1), RequestLimits(values=20)):
        assert isinstance(read_conversation(written, WHO, limits), Problem)
    deep = b"[" * 100_000 + b"]" * 100_000
    for part in (b'{"type":"x","a":%b}' % deep, deep):
        nested = written.replace(HELLO, part, 1)
        assert isinstance(read_conversation(nested, WHO, DEFAULT_LIMITS), Problem)


@settings(max_examples=examples(300))
@given(st.data())
def test_nothing_in_a_file_is_stumbled_over(data: st.DataObject) -> None:
    """Any value in any place of a file, and any bytes."""
    made: Any = file()
    place, keys = made, []
    for _ in range(data.draw(st.integers(0, 5))):
        if not isinstance(place, dict | list) or not place:
            break
        keys.append(data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place)))))
        place = place[keys[-1]]
    value = data.draw(json_values | st.integers() | any_text)
    target = made
    for key in keys[:-1]:
        target = target[key]
    if keys:
        target[keys[-1]] = value
    written = json.dumps(made if keys else value).encode()
    cut = data.draw(st.integers(0, len(written)))
    for text in (written, written[:cut], written[cut:]):
        found = read_conversation(text, WHO, DEFAULT_LIMITS)
        assert isinstance(found, Problem) or write_conversation(found.turns, 0.0)
