from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from segue.tunnel.documents import Base, encode_document
from segue.tunnel.folds.fold import MAX_FOLD_BYTES, Fold
from tests.strategies import examples
from tests.tunnel import replies, second_fold
from tools import fold_replies

SSE = b"text/event-stream; charset=utf-8"
TEXTS = ["", "a", "two words", 'quote " and \\ and \n and \x00', "naïve 😀 \u2028", "{", '{"a": [1, 2]}']

STREAMS = st.sampled_from(
    [
        replies.responses(
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "content": [{"type": "output_text", "text": TEXTS[3]}],
            },
            {"type": "function_call", "id": "fc_1", "name": "f", "arguments": TEXTS[6], "call_id": "c"},
        ),
        replies.chat(TEXTS[4], ("call_1", "f", TEXTS[6]), ("call_2", "g", "{}"), reasoning="hm"),
        replies.messages(
            {"type": "text", "text": TEXTS[3]}, {"type": "tool_use", "id": "t", "name": "f", "input": TEXTS[6]}
        ),
        replies.gemini({"text": TEXTS[4]}, {"functionCall": {"name": "f", "args": {"a": " b "}}}),
    ]
)
EVENTS = st.sampled_from(
    [
        replies.typed("response.output_text.delta", item_id="msg_1", delta="x"),
        replies.typed("response.output_item.added", item={"type": "message", "id": "msg_1", "role": "assistant"}),
        replies.typed("response.output_item.done", item={"type": "message", "id": "msg_1", "content": [{"text": "x"}]}),
        replies.typed("response.output_item.done", item={"type": "message", "id": "msg_1", "content": 5}),
        replies.typed("response.output_item.done", item={"type": ["message"]}),
        replies.typed("content_block_start", content_block={"type": "tool_use"}),
        replies.typed("content_block_delta", delta={"type": "input_json_delta", "partial_json": '"\\'}),
        replies.typed("content_block_stop"),
        replies.event({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a"}]}}]}),
        replies.event({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]}),
        replies.event(
            {"candidates": [{"content": {"parts": [{"text": "x"}, {}, {"text": 1}]}, "finishReason": "STOP"}]}
        ),
        b"data: [DONE]\r\n\r\n",
        b'data: {"n": 123456789012345678901234567890, "candidates": []}\n\n',
        b'data: {"type": "response.output_item.done", "item": {"n": 1e999, "i": 12345678901234567890123}}\n\n',
        b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
        b'data: {"type": "response.output_item.done", "item": {"a":' + b"[" * 5000 + b"]" * 5000 + b"}}\n\n",
        b": a comment\n\n",
        b"data: one\rdata\ndata:two\r\n\n",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"id: 7\n",
    ]
)
SOUP = st.lists(STREAMS | EVENTS | st.binary(max_size=30), max_size=8).map(b"".join)
CONTENT_TYPES = st.sampled_from(
    [SSE, b"Text/Event-Stream", b"application/json", b"application/problem+json", b"text/x", b""]
)


def fold(content_type: bytes, *data: bytes) -> bytes:
    folded = Fold(content_type)
    for piece in data:
        folded.feed(piece)
    assert folded.size == len(folded.value)
    return folded.value


@settings(max_examples=examples(500))
@given(CONTENT_TYPES, SOUP, st.lists(st.integers(0, 2000), max_size=8))
def test_the_fold_does_not_depend_on_how_the_reply_was_cut(content_type: bytes, reply: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(reply), *(cut % (len(reply) + 1) for cut in cuts)})
    cut_up = [reply[start:end] for start, end in itertools.pairwise(at)]
    assert fold(content_type, *cut_up) == fold(content_type, reply)


@settings(max_examples=examples(100))
@given(CONTENT_TYPES, SOUP)
def test_byte_by_byte_every_fold_is_the_beginning_of_the_next(content_type: bytes, reply: bytes) -> None:
    reply = reply[:3000]
    folded, before = Fold(content_type), b""
    for at in range(len(reply)):
        folded.feed(reply[at : at + 1])
        assert folded.value.startswith(before)
        before = folded.value
    assert before == fold(content_type, reply)


TOKEN = re.compile(rb'"[^"\\]*"|-?[0-9.]+|null|true|false|\{\}|\[\]')
ODD_TOKENS = st.sampled_from(
    [
        *(b'""', b'"a"', b'"text"', b'"message"', b'"\\ud83d"', b'"\xff"', b'"\\n\\u00e9"', b"null", b"true"),
        *(b"0", b"1", b"-0", b"1.0", b"1e5", b"NaN", b"{}", b"[]", b"[null]", b'{"text":"x"}', b"\t", b""),
    ]
)
VECTORS = [replay.reply for replay in fold_replies.replies() if replay.name.partition(":")[0] not in {"JSON", "stream"}]


def with_odd_tokens(reply: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    """Replace values and names of a reply's events by others."""
    for place, token in changes:
        tokens = list(TOKEN.finditer(reply))
        at = tokens[place % len(tokens)].span() if tokens else (0, 0)
        reply = reply[: at[0]] + token + reply[at[1] :]
    return reply


@settings(max_examples=examples(300))
@given(
    CONTENT_TYPES,
    st.lists(st.sampled_from(VECTORS), min_size=1, max_size=2).map(b"".join),
    st.lists(st.tuples(st.integers(0, 500), ODD_TOKENS), max_size=5),
    st.integers(1, 200),
)
def test_a_fold_written_from_the_specification_gives_the_same(
    content_type: bytes, reply: bytes, changes: list[tuple[int, bytes]], size: int
) -> None:
    odd = with_odd_tokens(reply, changes)
    pieces = [odd[at : at + size] for at in range(0, len(odd), size)]
    try:
        expected = second_fold.fold(content_type, odd)
    except second_fold.Unspecified:
        reject()
    assert fold(content_type, *pieces) == expected


@pytest.mark.parametrize("reply", [case.reply for case in fold_replies.replies()])
def test_the_replies_of_the_specification_have_the_same_fold_twice(reply: bytes) -> None:
    assert second_fold.fold(SSE, reply) == fold(SSE, reply)


@given(SOUP)
def test_what_is_no_event_stream_and_no_json_folds_to_its_bytes(reply: bytes) -> None:
    assert fold(b"application/octet-stream", reply) == reply


@settings(max_examples=examples(300))
@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists), st.sampled_from([None, 2]))
def test_json_folds_to_itself_without_white_space(value: object, indent: int | None) -> None:
    pretty = json.dumps(value, indent=indent).encode()
    assert fold(b"application/json", pretty) == json.dumps(value, separators=(",", ":")).encode()


def test_events_of_no_known_api_fold_to_their_data() -> None:
    assert fold(SSE, b"event: x\ndata: 1\ndata: 2\n\ndata: [3]\n\n: nothing\n\ndata: unfinished\n") == b"1\n2\n[3]\n"


@pytest.mark.parametrize("content_type", [SSE, b"application/json", b"text/plain"])
def test_a_fold_ends_at_its_limit(content_type: bytes) -> None:
    piece = b"data: " + b"x" * 100_000 + b"\n\n"
    folded = Fold(content_type)
    for _ in range(100):
        folded.feed(piece)
    assert folded.size == MAX_FOLD_BYTES
    before = folded.value
    folded.feed(b"data: y\n\n")
    assert folded.value == before


LONG = "".join(f"Line {n}: the {n * 7919 % 1000} of {n * 104729 % 977} is not here.\n" for n in range(120))


@pytest.mark.parametrize(
    ("stream", "repeated"),
    [
        (
            replies.responses(
                {
                    "id": "msg_0123456789abcdef",
                    "type": "message",
                    "status": "completed",
                    "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": LONG}],
                    "role": "assistant",
                }
            ),
            lambda text: (
                b'{"id":"msg_0123456789abcdef","content":[{"annotations":[],"text":"%b","type":"output_text"}]}' % text
            ),
        ),
        (replies.chat(LONG), lambda text: b'{"role":"assistant","content":"%b"}' % text),
        (
            replies.messages({"type": "text", "text": LONG}),
            lambda text: b'{"role":"assistant","content":[{"type":"text","text":"%b"}]}' % text,
        ),
        (replies.gemini({"text": LONG}), lambda text: b'{"role":"model","parts":[{"text":"%b"}]}' % text),
    ],
    ids=["responses", "chat", "messages", "gemini"],
)
def test_a_streamed_reply_costs_next_to_nothing_when_it_is_repeated(
    stream: bytes, repeated: Callable[[bytes], bytes]
) -> None:
    body = b'{"messages":[{"role":"user","content":"Tell me what is not here."}'
    again = body + b"," + repeated(LONG.replace("\n", "\\n").encode()) + b"]}"
    unfolded = len(encode_document(again, Base(body + b"]}", stream)))
    folded = len(encode_document(again, Base(body + b"]}", fold(SSE, stream))))
    assert folded < 48 + 90
    assert unfolded > folded


@pytest.mark.parametrize(
    "media_type", [b"application/json", b"application/vnd.example+json", b"Application/Problem+JSON"]
)
def test_json_of_any_kind_is_folded_without_white_space(media_type: bytes) -> None:
    folded = Fold(media_type + b"; charset=utf-8")
    folded.feed(b'{ "a b" : 1 }')
    assert folded.value == b'{"a b":1}'
