"""Items: looked at once, when they arrive, and kept as the bytes they came in."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.codec import MAX_DEPTH, not_unicode
from segue.protocol.items import (
    NO_IDS,
    Input,
    ItemKey,
    ItemReference,
    answered_by,
    calls_of,
    given_ids,
    join,
    key_of,
    parse_input,
    resolve_references,
    split,
    user_message,
)
from segue.protocol.problems import Problem, foreign_part, misplaced_trigger, missing
from tests.strategies import examples, hostile_bytes, items, pretty

USER = b'{"role":"user","content":"hi"}'
CALL = b'{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}'
ANSWER = b'{"type":"function_call_output","call_id":"c1","output":"done"}'


def parse(*new: bytes) -> Input | Problem:
    return parse_input(b"[" + b",".join(new) + b"]")


def nested(depth: int) -> bytes:
    return b'{"type":"x","x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


# ------------------------------------------------------------------------------------------------------- what is good


def test_a_string_is_one_user_message() -> None:
    """In the full form that upstreams take."""
    item = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"hi \\"you\\""}]}'
    assert user_message('hi "you"') == item
    assert parse_input(b'"hi \\"you\\""') == Input((item,))


def test_items_are_kept_byte_for_byte() -> None:
    """Spaces, the order of keys, escapes, doubled keys and fields that nobody knows are their author's."""
    odd = '{ "content" : "\\u00e9é" ,\n "role":"user","role":"user", "zzz":[1.0,1e2] }'.encode()
    assert parse(b" " + odd, CALL) == Input((odd, CALL), frozenset({"c1"}), keys=(key_of(CALL, 1),))


def test_kept_items_do_not_keep_the_message_they_came_in() -> None:
    """Views would hold a message of megabytes for one short item."""
    parsed = parse(USER)
    assert isinstance(parsed, Input)
    assert [type(item) for item in parsed.items] == [bytes]


@pytest.mark.parametrize(
    "item",
    [
        USER,
        b'{"type":null,"role":"user","content":"hi"}',
        b'{"role":"assistant","content":[{"type":"output_text","text":""},{"type":"refusal","refusal":"no"}]}',
        b'{"role":"user","content":[{"type":"input_image","image_url":"https://x"}]}',
        b'{"role":"user","content":[{"type":"input_image","file_id":"f","image_url":null}]}',
        b'{"role":"user","content":[{"type":"part_of_next_year","image_url":{"anything":"goes"}}]}',
        b'{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"x"}]}',
        b'{"type":"reasoning","id":"rs_1","encrypted_content":"abc"}',
        b'{"type":"reasoning","summary":[{"type":"summary_text","text":"x"}],"content":null}',
        b'{"type":"item_of_next_year","anything":{"goes":[1,2,3]}}',
        nested(MAX_DEPTH),
        nested(MAX_DEPTH)[:-1] + b',"wide":[{},[],{}]}',
    ],
)
def test_an_item_that_upstreams_can_judge_passes(item: bytes) -> None:
    """Only what we act on is checked."""
    parsed = parse(item)
    assert isinstance(parsed, Input)
    assert parsed.items == (item,)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("refusal", "refusal"),
        *(("input_image", name) for name in ("image_url", "file_id")),
        *(("input_file", name) for name in ("file_data", "file_url", "file_id", "filename")),
    ],
)
def test_a_field_of_a_part_that_must_be_a_text_is_named(kind: str, name: str) -> None:
    raw = json.dumps([{"role": "user", "content": [{"type": kind, name: 7}]}])
    problem = parse_input(raw.encode())
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == ("invalid_type", f"input[0].content[0].{name}")


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call", "computer_call", "call_of_next_year_call"])
def test_a_call_and_its_answer_may_come_together(kind: str) -> None:
    """As in a replayed history: nothing needs to be looked for in the chain."""
    fields = {"call_id": "c", "name": "f", "arguments": "{}", "input": ""}
    call = json.dumps({"type": kind, **fields}).encode()
    answer = json.dumps({"type": f"{kind}_output", "call_id": "c", "output": ""}).encode()
    keys = ItemKey(0, kind, None, "c", by_model=True), ItemKey(1, f"{kind}_output", None, "c", by_model=False)
    assert parse(call, answer) == Input((call, answer), frozenset({"c"}), keys=keys)
    assert Input(keys=keys).answered == answered_by([call, answer]) == {"c"}
    assert answered_by([call, USER]) == frozenset()


@pytest.mark.parametrize(
    "item",
    [b'{"type":"weather_call"}', b'{"type":"weather_call_output"}', b'{"role":"user","content":"hi","call_id":"c"}'],
    ids=["a call without an id", "an answer without an id", "an id without a type"],
)
def test_what_has_no_type_or_no_call_id_neither_calls_nor_answers(item: bytes) -> None:
    parsed = parse(item)
    assert isinstance(parsed, Input)
    assert (parsed.items, parsed.calls, parsed.answers) == ((item,), frozenset(), ())


def test_an_answer_to_an_earlier_turn_names_its_call_and_its_place() -> None:
    """The executor looks for the call in the chain; a call after its answer does not count."""
    keys = key_of(ANSWER, 1), key_of(CALL, 2)
    assert parse(USER, ANSWER, CALL) == Input((USER, ANSWER, CALL), frozenset({"c1"}), (("c1", 1),), keys=keys)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (b'{"role":"user","content":"hi"}', None),
        (b'{"role":"user","content":"hi","id":""}', None),
        (b'{"role":"user","content":"hi","id":"u1"}', ItemKey(0, "message", "u1", None, by_model=False)),
        (b'{"role":"assistant","content":"hi"}', ItemKey(0, "message", None, None, by_model=True)),
        (b'{"type":"reasoning","summary":[]}', ItemKey(0, "reasoning", None, None, by_model=True)),
        (b'{"type":"web_search_call","id":"w"}', ItemKey(0, "web_search_call", "w", None, by_model=True)),
        (ANSWER, ItemKey(0, "function_call_output", None, "c1", by_model=False)),
    ],
)
def test_what_may_be_in_a_history_has_a_key(item: bytes, expected: ItemKey | None) -> None:
    """A message of a user without an id may be said twice."""
    parsed = parse(item)
    assert isinstance(parsed, Input)
    assert parsed.keys == (() if expected is None else (expected,))
    assert expected is None or key_of(item) == expected


def test_no_items_are_an_input_too() -> None:
    """Whether that is enough for a turn is the request's business."""
    assert parse() == Input()


# --------------------------------------------------------------------------------------------------------- references


def reference(ident: str, **fields: object) -> bytes:
    return json.dumps({"type": "item_reference", "id": ident, **fields}).encode()


@pytest.mark.parametrize(
    "item", [reference("msg_1"), b'{"id":"msg_1"}', b'{"id":"msg_1","type":null}', reference("msg_1", x=[1])]
)
def test_a_reference_names_an_item_and_knows_its_place(item: bytes) -> None:
    """Its type may be left out, as the API's schema says; a message without a type has a role."""
    assert parse(USER, item) == Input((USER, item), references=(ItemReference("msg_1", 1),))


def test_a_message_with_an_id_is_no_reference() -> None:
    item = b'{"id":"msg_1","role":"user","content":"hi"}'
    assert parse(item) == Input((item,), keys=(key_of(item),))


def resolved(*new: bytes, found: dict[str, bytes]) -> Input:
    given = parse(*new)
    assert isinstance(given, Input), given
    return resolve_references(given, found)


def test_an_item_stands_where_its_reference_stood() -> None:
    """As its own bytes; its calls count, and an answer to one of them has its call."""
    found = {"a": CALL, "b": b'{ "role":"user","content":"\\u00e9" }'}
    expected = parse(USER, found["b"], CALL, ANSWER)
    assert resolved(USER, reference("b"), reference("a"), ANSWER, found=found) == expected


def test_an_item_is_taken_once() -> None:
    """However often it is referred to; and not at all where nothing is found, since it is in the history already."""
    found = {"a": CALL}
    given = [reference("a"), USER, reference("gone"), reference("a"), ANSWER]
    assert resolved(*given, found=found) == parse(CALL, USER, ANSWER)


def test_an_answer_before_its_call_is_still_an_orphan_and_keeps_its_place_in_the_request() -> None:
    """So that a refusal names what the client sent. A tool output that was referred to needs its call too."""
    given = [reference("gone"), ANSWER, reference("a"), reference("late")]
    found = {"a": CALL, "late": ANSWER.replace(b"c1", b"c2")}
    assert resolved(*given, found=found).answers == (("c1", 1), ("c2", 3))


COMPACTION = b'{"type":"compaction","encrypted_content":"x"}'
SUMMARY = b'{"type":"compaction_summary","encrypted_content":"x"}'
TRIGGER = b'{"type":"compaction_trigger"}'


@pytest.mark.parametrize(
    ("new", "compacted", "triggers"),
    [
        ([USER], False, False),
        ([COMPACTION], True, False),
        ([USER, SUMMARY, USER], True, False),
        ([USER, TRIGGER], False, True),
        ([COMPACTION, TRIGGER], True, True),
    ],
)
def test_items_about_the_history_before_them_are_seen(new: list[bytes], *, compacted: bool, triggers: bool) -> None:
    parsed = parse(*new)
    assert isinstance(parsed, Input)
    assert (parsed.compacted, parsed.triggers) == (compacted, triggers)
    assert parsed.items == tuple(new)


@pytest.mark.parametrize("new", [[TRIGGER, USER], [USER, TRIGGER, TRIGGER]])
def test_nothing_stands_behind_what_asks_for_a_compaction(new: list[bytes]) -> None:
    assert parse(*new) == misplaced_trigger(new.index(TRIGGER))


def test_a_reference_may_stand_for_an_item_that_stands_for_others() -> None:
    parsed = parse(b'{"type":"item_reference","id":"cmp_1"}')
    assert isinstance(parsed, Input)
    assert not parsed.compacted
    assert resolve_references(parsed, {"cmp_1": COMPACTION}).compacted


def test_what_an_author_said_of_an_item_is_told() -> None:
    """No id is none, whether it is left out, null or empty; an item without a type is a message."""
    given = [b'{"type":"x","id":"i"}', b'{"role":"user","id":""}', b'{"type":null,"id":null}']
    assert list(given_ids(given)) == [(0, "i", "x"), (1, None, "message"), (2, None, "message")]


# -------------------------------------------------------------------------------------------------------- what is not


def wrong_type(param: str, rest: str) -> Problem:
    return Problem("invalid_type", f"Invalid type for '{param}': expected {rest} instead.", param)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("7", wrong_type("input", "a string or an array, but got an integer")),
        ("{}", wrong_type("input", "a string or an array, but got an object")),
        ("[7]", wrong_type("input[0]", "an object, but got an integer")),
        ('[{"role":"user","content":"hi"},{}]', missing("input[1].type")),
        ('[{"type":7}]', wrong_type("input[0].type", "a string or null, but got an integer")),
        ('[{"type":"x","call_id":7}]', wrong_type("input[0].call_id", "a string or null, but got an integer")),
        ('[{"type":"item_reference"}]', missing("input[0].id")),
        ('[{"type":"item_reference","id":null}]', missing("input[0].id")),
        ('[{"id":null}]', missing("input[0].type")),
        ('[{"type":"x","id":7}]', wrong_type("input[0].id", "a string or null, but got an integer")),
        ('[{"role":"user"}]', missing("input[0].content")),
        ('[{"role":"user","content":[{}]}]', missing("input[0].content[0].type")),
        ('[{"role":"user","content":[{"type":"input_text"}]}]', missing("input[0].content[0].text")),
        ('[{"role":"user","content":[{"type":"input_text","text":null}]}]', missing("input[0].content[0].text")),
        (
            '[{"role":"user","content":[{"type":"x","text":7}]}]',
            wrong_type("input[0].content[0].text", "a string or null, but got an integer"),
        ),
        (
            '[{"role":"user","content":[{"type":"input_image","image_url":{"url":"x"}}]}]',
            wrong_type("input[0].content[0].image_url", "a string or null, but got an object"),
        ),
        (
            '[{"type":"function_call_output","call_id":"c","output":[{"type":"input_file","file_id":7}]}]',
            wrong_type("input[0].output[0].file_id", "a string or null, but got an integer"),
        ),
        (
            '[{"role":"assistant","content":[{"type":"refusal","refusal":[]}]}]',
            wrong_type("input[0].content[0].refusal", "a string or null, but got an array"),
        ),
        (
            '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]',
            foreign_part("input[0].content[0].type", "image_url", "input_image"),
        ),
        (
            '[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}]',
            foreign_part("input[0].content[0].type", "file", "input_file"),
        ),
        ('[{"type":"function_call","name":"f","arguments":""}]', missing("input[0].call_id")),
        ('[{"type":"function_call","call_id":"c","arguments":""}]', missing("input[0].name")),
        ('[{"type":"function_call","call_id":"c","name":"f"}]', missing("input[0].arguments")),
        ('[{"type":"custom_tool_call","call_id":"c","name":"f"}]', missing("input[0].input")),
        ('[{"type":"function_call_output","output":""}]', missing("input[0].call_id")),
        ('[{"type":"function_call_output","call_id":"c"}]', missing("input[0].output")),
        ('[{"type":"custom_tool_call_output","call_id":"c"}]', missing("input[0].output")),
        (
            '[{"type":"function_call_output","call_id":"c","output":[{"type":"input_text"}]}]',
            missing("input[0].output[0].text"),
        ),
        ('[{"type":"compaction","id":"cmp_1"}]', missing("input[0].encrypted_content")),
        ('[{"type":"reasoning","summary":[{"type":"summary_text"}]}]', missing("input[0].summary[0].text")),
        ('[{"type":"reasoning","content":[{"type":"reasoning_text"}]}]', missing("input[0].content[0].text")),
        ('[{"type":"reasoning","summary":"x"}]', wrong_type("input[0].summary", "an array, but got a string")),
    ],
)
def test_a_bad_item_is_named_by_its_place(raw: str, expected: Problem) -> None:
    """The client learns which of its items is wrong, and where in it."""
    assert parse_input(raw.encode()) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            b"1e999",
            Problem("invalid_value", "Invalid value for 'input[0][...]': Number out of range.", "input[0][...]"),
        ),
        (b'"\xff"', "it holds text that is not valid Unicode"),
        (b'{"\xff":1}', "it holds text that is not valid Unicode"),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "it is nested too deeply"),
        (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, "it is nested too deeply"),
    ],
)
def test_what_no_upstream_could_read_is_refused_in_parts_that_nobody_looks_at_too(
    value: bytes, expected: Problem | str
) -> None:
    """An item is read again when it is listed or translated, and must not fail then."""
    problem = parse(b'{"type":"x","x":' + value + b"}")
    if isinstance(expected, str):
        expected = Problem("invalid_json", f"The request is not valid JSON: {expected}. Send one JSON object.")
    assert problem == expected


@settings(max_examples=examples(500))
@given(hostile_bytes)
def test_no_input_raises(raw: bytes) -> None:
    """And what is accepted can be read in full, however often."""
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)  # what the request's own reader passes on
    except msgspec.DecodeError:
        return
    parsed = parse_input(raw)
    assert isinstance(parsed, Input | Problem)
    if isinstance(parsed, Input):
        assert [type(json.loads(item)) for item in split(join(parsed.items))] == [dict] * len(parsed.items)


# --------------------------------------------------------------------------------------------------- lists of bytes


@settings(max_examples=examples(100))
@given(st.lists(items, max_size=4))
def test_a_list_of_items_is_split_and_joined_without_touching_them(values: list[Any]) -> None:
    """Line breaks inside an item are its author's."""
    raws = [pretty(value).encode() for value in values]
    assert split(join(raws)) == raws
    assert json.loads(join(raws)) == values


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([], set()),
        ([CALL, b'{"type":"custom_tool_call","call_id":"c2"}'], {"c1", "c2"}),
        ([USER, ANSWER], set()),
        ([b'{"type":"web_search_call","id":"ws_1"}', b'{"type":"x_call","call_id":null}', b"{}"], set()),
    ],
)
def test_calls_of_a_finished_output_are_those_that_may_be_answered(made: list[bytes], expected: set[str]) -> None:
    """Hosted tools answer themselves: their calls have no call_id."""
    assert calls_of(made) == expected


def test_a_long_text_becomes_the_message_that_a_short_one_becomes_and_holds_it_as_it_came() -> None:
    """It is not decoded: that would hold up everything else for as long as it takes."""
    for text in ("é" * 50_000, 'a"\\\n' * 30_000, "😀" * 20_000):
        for raw in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
            parsed = parse_input(msgspec.Raw(raw.encode()))
            assert isinstance(parsed, Input)
            (item,) = parsed.items
            assert raw.encode() in item
            assert json.loads(item) == json.loads(user_message(text))
            assert parsed.keys == ()


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_text_that_is_no_utf_8_is_refused_however_long_it_is(length: int) -> None:
    assert parse_input(msgspec.Raw(b'"' + b"x" * length + b'\xff"')) == not_unicode()


def test_turns_without_calls_share_one_empty_set() -> None:
    """Python makes a new one each time, and looks through all of them for cycles."""
    given = parse_input(b'[{"role":"user","content":"x"}]')
    assert isinstance(given, Input)
    assert all(ids is NO_IDS for ids in (given.calls, given.answered, calls_of(given.items, given.calls)))
    assert answered_by(given.items) is NO_IDS


def test_calls_of_the_output_join_those_of_the_input() -> None:
    call = b'{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}'
    assert calls_of([call], frozenset({"c0"})) == {"c0", "c1"}
