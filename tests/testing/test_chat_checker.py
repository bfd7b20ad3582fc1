"""Tests of the checker itself: a good stream passes, and one with any one rule broken is reported for that rule."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from segue.testing.chat_checker import check_chunks, check_completion
from segue.testing.response_schemas import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
Frames = list[Any]
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
DONE = "[DONE]"
ERROR = {"error": {"message": "No.", "type": "server_error", "param": None, "code": "upstream_error"}}


def chunk(*choices: Json, **fields: Any) -> Json:  # noqa: ANN401 - any field
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": list(choices), **fields}


def delta(reason: str | None = None, **fields: Any) -> Json:  # noqa: ANN401 - any field
    return {"index": 0, "delta": fields, "logprobs": None, "finish_reason": reason}


def call(index: int, **fields: Any) -> Json:  # noqa: ANN401 - any field
    return delta(tool_calls=[{"index": index, **fields}])


def begin(index: int, ident: str) -> Json:
    return call(index, id=ident, type="function", function={"name": "look", "arguments": ""})


def sse(frames: Frames) -> bytes:
    return "".join(f"data: {one if one == DONE else json.dumps(one)}\n\n" for one in frames).encode()


TEXT: Frames = [
    chunk(delta(role="assistant", content="", refusal=None)),
    chunk(delta(content="hel")),
    chunk(delta(content="lo", reasoning_content="hm")),
    chunk(delta("stop")),
    DONE,
]
CALLS: Frames = [
    chunk(delta(role="assistant", content=None)),
    chunk(begin(0, "a")),
    chunk(call(0, function={"arguments": "{"})),
    chunk(call(0, function={"arguments": "}"})),
    chunk(call(1, id="b", type="custom", custom={"name": "say", "input": ""})),
    chunk(call(1, custom={"input": "x"})),
    chunk(delta("tool_calls")),
    DONE,
]
COUNTED: Frames = [*({**frame, "usage": None} for frame in TEXT[:-1]), chunk(usage=USAGE), DONE]


def test_a_text() -> None:
    stream = check_chunks(sse(TEXT))
    assert stream.message == {"content": "hello", "reasoning_content": "hm"}
    assert (stream.finish_reason, stream.usage, stream.error, len(stream.chunks)) == ("stop", None, None, 4)


def test_comments_between_chunks_say_nothing() -> None:
    assert check_chunks(sse(TEXT).replace(b"\n\n", b"\n\n: keep-alive\n\n", 2)) == check_chunks(sse(TEXT))


def test_calls() -> None:
    stream = check_chunks(sse(CALLS))
    assert stream.finish_reason == "tool_calls"
    assert stream.message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        {"id": "b", "type": "custom", "custom": {"name": "say", "input": "x"}},
    ]


def test_a_usage() -> None:
    assert check_chunks(sse(COUNTED), include_usage=True).usage == USAGE


@pytest.mark.parametrize("sent", [0, 3])
def test_an_error(sent: int) -> None:
    stream = check_chunks(sse([*TEXT[:sent], ERROR]))
    assert (stream.error, stream.finish_reason) == (ERROR["error"], None)


def _put(frames: Frames, at: int, value: object, *path: str | int) -> Frames:
    """Set one value in a copy of the frames."""
    changed = deepcopy(frames)
    inner: Any = changed[at]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (TEXT[:-1], "stops without an end"),
        ([*TEXT, TEXT[1]], "comes after the end"),
        ([ERROR, DONE], "comes after the end"),
        ([*TEXT[:-2], DONE], "without a finish_reason"),
        ([TEXT[0], DONE], "without a finish_reason"),
        ([TEXT[1], *TEXT[3:]], "is not in the first chunk"),
        ([chunk(usage=USAGE)], "is not in the first chunk"),
        ([TEXT[0], TEXT[0]], "comes again"),
        ([TEXT[0], {**TEXT[1], "created": 2}], "another id, time or model"),
        ([{**TEXT[0], "id": "resp_1"}], "no id of a completion"),
        ([{**TEXT[0], "object": "chat.completion"}], "Invalid enum value"),
        ([{name: value for name, value in TEXT[0].items() if name != "model"}], "missing required field `model`"),
        ([chunk(delta(role="assistant"), delta())], "2 answers"),
        ([*TEXT[:4], TEXT[1]], "goes on after the finish_reason"),
        (_put(TEXT, 3, "maybe", "choices", 0, "finish_reason"), "Invalid enum value"),
        (_put(TEXT, 3, "tool_calls", "choices", 0, "finish_reason"), "which its calls belie"),
        (_put(CALLS, 6, "stop", "choices", 0, "finish_reason"), "which its calls belie"),
        ([TEXT[0], chunk(call(0, function={"arguments": "{}"}))], "without its id or type"),
        ([TEXT[0], chunk(call(0, id="a", type="function"))], "without its name"),
        ([TEXT[0], chunk(call(0, id="a", type="custom", custom={}))], "without its name"),
        ([TEXT[0], chunk(begin(1, "a"))], "is not the next one"),
        ([TEXT[0], chunk(begin(0, "a")), chunk(begin(0, "a"))], "says the id or the type of a call again"),
        ([TEXT[0], chunk(begin(0, "a")), chunk(call(0, custom={"input": ""}))], "has nothing for the function"),
        ([TEXT[0], chunk(begin(0, "a")), chunk(call(0))], "has nothing for the function"),
        ([{**TEXT[0], "usage": None}], "was not asked for"),
        ([{"error": {"message": "No."}}], "lacks type"),
        ([7], "frame"),
    ],
)
def test_a_stream_with_a_rule_broken(frames: Frames, said: str) -> None:
    with pytest.raises(ProtocolViolation, match=said):
        check_chunks(sse(frames))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (TEXT, "was asked for"),
        ([*COUNTED[:-2], chunk(usage=None)], "in a chunk of its own"),
        ([{**COUNTED[0], "usage": USAGE}], "in a chunk of its own"),
        ([*COUNTED[:2], chunk(usage=USAGE)], "comes before the end"),
        ([*COUNTED[:-1], chunk(usage=USAGE)], "comes after the usage"),
        ([*COUNTED[:-2], chunk(usage={**USAGE, "total_tokens": 9})], "does not add up"),
    ],
)
def test_a_usage_with_a_rule_broken(frames: Frames, said: str) -> None:
    with pytest.raises(ProtocolViolation, match=said):
        check_chunks(sse(frames), include_usage=True)


@pytest.mark.parametrize("body", [b"data: {}", b"event: x\ndata: {}\n\n", b": hello\n\n", b"data: 1\ndata: 2\n\n"])
def test_what_is_not_one_line_of_data_each(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        check_chunks(body)


def completion(**message: Any) -> Json:  # noqa: ANN401 - any field
    said = {"role": "assistant", "content": "x", "refusal": None, **message}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


FUNCTION = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_completions() -> None:
    token = {"token": "x", "logprob": -1.0, "bytes": None}
    check_completion({**completion(), "usage": USAGE})
    check_completion(
        completion(tool_calls=[FUNCTION, {"id": "b", "type": "custom", "custom": {"name": "s", "input": ""}}])
    )
    body = completion()
    body["choices"][0]["logprobs"] = {"content": [{**token, "top_logprobs": [token]}], "refusal": None}
    check_completion(body)


def _answers(body: Json) -> None:
    body["choices"] *= 2


def _reason(body: Json) -> None:
    body["choices"][0]["finish_reason"] = "tool_calls"


def _usage(body: Json) -> None:
    body["usage"] = {**USAGE, "total_tokens": 1}


def _kind(body: Json) -> None:
    body["choices"][0]["message"]["tool_calls"] = [
        {"id": "a", "type": "custom", "function": {"name": "l", "arguments": ""}}
    ]
    _reason(body)


def _ident(body: Json) -> None:
    body["id"] = "x"


def _refusal(body: Json) -> None:
    del body["choices"][0]["message"]["refusal"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_answers, "2 answers"),
        (_reason, "which its calls belie"),
        (_usage, "does not add up"),
        (_kind, "has no custom"),
        (_ident, "no id of a completion"),
        (_refusal, "missing required field `refusal`"),
    ],
)
def test_a_completion_with_a_rule_broken(spoil: Callable[[Json], None], said: str) -> None:
    body = completion()
    spoil(body)
    with pytest.raises(ProtocolViolation, match=said):
        check_completion(body)
