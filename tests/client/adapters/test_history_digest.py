"""Histories that a model would read as the same have the same digest, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.client.adapters.history_digest import EMPTY, extend_digest

Item = dict[str, Any]


def digest(*items: Item) -> bytes:
    return [EMPTY, *extend_digest(EMPTY, (json.dumps(item).encode() for item in items))][-1]


CALL = {"type": "function_call", "call_id": "call_1", "name": "read", "arguments": '{"path":"a"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "text"}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"role": "user", "content": "hi"}, {"type": "message", "role": "user", "content": "hi"}),
        ({"role": "user", "content": "hi"}, {"role": "user", "content": [{"type": "input_text", "text": "hi"}]}),
        (SAID, {"role": "assistant", "content": "hi"}),
        (SAID, SAID | {"id": "msg_1", "status": "completed"}),
        (SAID, {**SAID, "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]}),
        (CALL, CALL | {"id": "fc_1", "status": "completed", "namespace": None}),
        (OUTPUT, OUTPUT | {"id": None, "status": "completed"}),
        (OUTPUT, OUTPUT | {"output": [{"type": "input_text", "text": "text"}]}),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": None}]},
            {"role": "user", "content": [{"image_url": "u", "type": "input_image"}]},
        ),
    ],
)
def test_the_same_in_another_form(one: Item, other: Item) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"role": "user", "content": "hi"}, {"role": "developer", "content": "hi"}),
        ({"role": "user", "content": "hi"}, {"role": "user", "content": "hi "}),
        ({"role": "user", "content": "ab"}, {"role": "user", "content": [{"type": "input_text", "text": "a"}] * 2}),
        (CALL, CALL | {"arguments": '{"path":"b"}'}),
        (CALL, CALL | {"call_id": "call_2"}),
        (CALL, CALL | {"name": "write"}),
        (CALL, CALL | {"namespace": "files"}),
        (OUTPUT, OUTPUT | {"output": "other"}),
        (OUTPUT, OUTPUT | {"output": [{"type": "input_image", "image_url": "text"}]}),
    ],
)
def test_what_differs_for_a_model(one: Item, other: Item) -> None:
    assert digest(one) != digest(other)


def test_reasoning_does_not_count() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    assert digest(SAID, reasoning, CALL) == digest(SAID, CALL)
    assert digest(reasoning) == EMPTY


def test_an_unreadable_item_is_only_itself() -> None:
    assert list(extend_digest(EMPTY, [b"["])) == list(extend_digest(EMPTY, [b"["]))
    assert list(extend_digest(EMPTY, [b"["])) != list(extend_digest(EMPTY, [b"]"]))
    assert digest({"role": "user", "content": 1}) != digest({"role": "user", "content": 2})


@given(st.lists(st.sampled_from([CALL, OUTPUT, SAID, {"role": "user", "content": "hi"}]), min_size=1, max_size=6))
def test_the_order_and_the_number_count(items: list[Item]) -> None:
    written = [json.dumps(item).encode() for item in items]
    whole = list(extend_digest(EMPTY, written))
    assert len(whole) == len(set(whole)) == len(items)
    middle = len(items) // 2
    start = [EMPTY, *extend_digest(EMPTY, written[:middle])][-1]
    assert list(extend_digest(start, written[middle:])) == whole[middle:]
    if items != items[::-1]:
        assert digest(*items[::-1]) != whole[-1]
