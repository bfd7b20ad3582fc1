from __future__ import annotations

from collections.abc import Mapping

from segue.tunnel.folds.fold import Fold
from tests.tunnel import replies


def fold(stream: bytes) -> bytes:
    folded = Fold(b"text/event-stream")
    folded.feed(stream)
    return folded.value


def deltas(*fields: Mapping[str, object]) -> bytes:
    return b"".join(replies.event({"choices": [{"index": 0, "delta": delta}]}) for delta in fields)


def test_a_message_folds_to_what_a_request_repeats() -> None:
    assert fold(replies.chat('He said "no".\n')) == b',{"role":"assistant","content":"He said \\"no\\".\\n"}'


def test_calls_follow_the_text_with_their_arguments_escaped_once() -> None:
    assert fold(replies.chat("Hi", ("call_1", "read", '{"a": 1}'), ("call_2", "list", "{}"))) == (
        b',{"role":"assistant","content":"Hi","tool_calls":['
        b'{"id":"call_1","type":"function","function":{"name":"read","arguments":"{\\"a\\": 1}"}},'
        b'{"id":"call_2","type":"function","function":{"name":"list","arguments":"{}"}}]}'
    )


def test_calls_without_text_have_null_for_content() -> None:
    assert fold(replies.chat(None, ("call_1", "read", "{}"))) == (
        b',{"role":"assistant","content":null,"tool_calls":['
        b'{"id":"call_1","type":"function","function":{"name":"read","arguments":"{}"}}]}'
    )


def test_reasoning_that_some_servers_want_back_is_kept() -> None:
    assert fold(replies.chat("Hi", reasoning="Hm.")) == (
        b',{"role":"assistant","reasoning_content":"Hm.","content":"Hi"}'
    )


def test_calls_are_told_apart_by_their_ids_when_all_have_the_same_index() -> None:
    calls = [{"tool_calls": [{"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}}]} for name in "ab"]
    assert fold(deltas(*calls)).count(b'"arguments":"{}"}}') == 1
    assert b'{"id":"b","type":"function","function":{"name":"b","arguments":"{}' in fold(deltas(*calls))


def test_an_id_that_is_repeated_in_each_piece_is_one_call() -> None:
    calls = [
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": piece}}]} for piece in "xyz"
    ]
    assert fold(deltas(*calls)).endswith(b'{"name":"f","arguments":"xyz')


def test_text_after_a_call_is_another_field() -> None:
    call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}
    assert fold(deltas(call, {"content": "x"})).endswith(b'"arguments":"{}"}}],"content":"x')


def piece(**call: object) -> dict[str, object]:
    return {"tool_calls": [call]}


def test_a_piece_without_an_id_belongs_to_the_call_of_its_index_and_changes_nothing_about_it() -> None:
    pieces = [piece(index=0, id="a", function={"name": "f", "arguments": "x"})]
    pieces += [piece(index=0, function={"arguments": "y"}), piece(index=0, id="a", function={"arguments": "z"})]
    assert fold(deltas(*pieces)).endswith(
        b'"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"xyz'
    )


def test_calls_without_ids_are_told_apart_by_their_index() -> None:
    pieces = [piece(index=0, function={"name": "f", "arguments": "{}"}), piece(index=1), piece(index=1)]
    assert fold(deltas(*pieces)) == (
        b',{"role":"assistant","content":null,"tool_calls":['
        b'{"id":"","type":"function","function":{"name":"f","arguments":"{}"}},'
        b'{"id":"","type":"function","function":{"name":"","arguments":"'
    )


def test_each_field_of_text_has_its_own_name() -> None:
    fields = ("reasoning_content", "reasoning", "content", "refusal")
    assert fold(deltas(*({field: "x"} for field in fields))) == (
        b',{"role":"assistant","reasoning_content":"x","reasoning":"x","content":"x","refusal":"x'
    )
