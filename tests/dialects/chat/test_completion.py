"""The completion that the result of a turn is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from segue.dialects.chat.completion import completion_id, completion_message, read_logprobs, url_citation
from segue.dialects.interface import Output
from segue.dialects.sealed_reasoning import seal
from segue.protocol.events import Event, OutputWriter
from tests.dialects.chat.doors import asked, completed, ended, said
from tests.dialects.conversations import RESPONSE_ID, encode_items

Json = dict[str, Any]
SEALED = seal("api.anthropic.com", '{"signature":"c2ln"}')


def message(*parts: Json) -> Json:
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": list(parts)}


def text(words: str, **fields: object) -> Json:
    return {"type": "output_text", "text": words, "annotations": [], "logprobs": [], **fields}


def read(*items: Json) -> Json:
    return completion_message(encode_items(items))


def done(*items: Json) -> Output:
    """The output of a turn of these items, with nothing of them streamed."""
    frames: Output = []
    for index, item in enumerate(items):
        raw = json.dumps(item).encode()
        added = {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}}
        frames.append(Event("response.output_item.added", json.dumps(added).encode(), -1))
        ends = {"type": "response.output_item.done", "output_index": index, "item": item}
        frames.append(Event("response.output_item.done", json.dumps(ends).encode(), -1, raw))
    return [*frames, ended()]


def test_a_completion_has_what_the_api_has() -> None:
    assert completed(asked(), said("hello")) == {
        "id": completion_id(RESPONSE_ID),
        "object": "chat.completion",
        "created": 100,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
        },
    }


def test_a_cut_answer_may_have_no_usage() -> None:
    output = [*said("hel")[:-1], msgspec.structs.replace(ended("incomplete", "max_output_tokens"), usage=None)]
    completion = completed(asked(), output)
    assert "usage" not in completion
    assert completion["choices"][0]["finish_reason"] == "length"


def test_calls_have_no_text_beside_them_unless_there_is_one() -> None:
    call: Json = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
    custom: Json = {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "x"}
    assert read(call, custom) == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            {"id": "b", "type": "custom", "custom": {"name": "patch", "input": "x"}},
        ],
    }
    assert read(message(text("Looking.")), call)["content"] == "Looking."


def test_texts_refusals_and_reasoning_are_joined() -> None:
    thought: Json = {"type": "reasoning", "id": "rs_1", "encrypted_content": SEALED}
    found = read(
        {**thought, "summary": [{"type": "summary_text", "text": "hm"}, {"type": "summary_text", "text": "so"}]},
        message(text("one "), text("and"), {"type": "refusal", "refusal": "no"}),
        {**thought, "summary": [], "content": [{"type": "reasoning_text", "text": "well"}]},
        message(text("two"), {"type": "refusal", "refusal": "never"}),
    )
    assert found["content"] == "one and\n\ntwo"
    assert found["refusal"] == "no\n\nnever"
    assert found["reasoning_content"] == "hm\n\nso\n\nwell"
    assert [(one["index"], one["text"]) for one in found["reasoning_details"]] == [(0, "hm\n\nso"), (2, "well")]


def test_a_refusal_alone_has_no_text() -> None:
    assert read(message({"type": "refusal", "refusal": "no"}))["content"] is None


def test_an_answer_without_anything_is_an_empty_text() -> None:
    assert read()["content"] == ""


def test_annotations_are_those_that_this_api_has() -> None:
    cited = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    (annotation,) = read(message(text("x", annotations=[cited, {"type": "file_path"}])))["annotations"]
    assert annotation == {"type": "url_citation", "url_citation": {**cited, "type": None} | {}} or annotation
    assert annotation["url_citation"] == {name: value for name, value in cited.items() if name != "type"}
    assert url_citation("x") is None


def test_what_this_api_has_no_word_for_is_left_out_with_a_warning() -> None:
    search: Json = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    completion = completed(asked(), done(search, message(text("x"))))
    assert completion["choices"][0]["message"]["content"] == "x"
    assert completion["warnings"] == ["Items of type 'web_search_call' were left out: this API has nothing like them."]


def test_log_probabilities_of_all_parts() -> None:
    script = OutputWriter(RESPONSE_ID)
    token = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}
    output: Output = [*script.text("x", [token]), *script.text("x", [token]), *script.end_item(), ended()]
    assert completed(asked(logprobs=True), output)["choices"][0]["logprobs"] == {
        "content": [token, token],
        "refusal": None,
    }


@pytest.mark.parametrize("raw", [b"7", b'[{"token":"x"}]', b"[1]"])
def test_log_probabilities_of_another_shape_are_none(raw: bytes) -> None:
    assert read_logprobs(msgspec.Raw(raw)) == []
