"""Replies for the vectors of folds: what providers send, and what a strict reader must treat alike at both ends.

An event is a JSON value, or a text that stands for itself where it is no JSON, or bytes where it is no UTF-8. Not here:
the folds (`make_vectors`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

Event = Mapping[str, object] | str | bytes


class FoldReply(msgspec.Struct, frozen=True):
    """A reply that is folded: its name, its content type, and its bytes."""

    name: str
    content_type: str
    reply: bytes


def stream(events: Sequence[Event], *, end: bytes = b"\n\n") -> bytes:
    """Return the bytes of an event stream."""
    return b"".join(b"data: " + _data(event) + end for event in events)


def _data(event: Event) -> bytes:
    if isinstance(event, bytes):
        return event
    return event.encode() if isinstance(event, str) else msgspec.json.encode(event)


# ------------------------------------------------------------------------------------------------------------ Responses

_MESSAGE: Final = {"id": "m", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
_CALL: Final = {"id": "f", "type": "function_call", "name": "g", "arguments": "", "call_id": "c"}


def _added(item: object, **others: object) -> Event:
    return {"type": "response.output_item.added", "item": item, **others}


def _done(item: object, **others: object) -> Event:
    return {"type": "response.output_item.done", "item": item, **others}


def _text(delta: object, item_id: object = "m", **others: object) -> Event:
    return {"type": "response.output_text.delta", "item_id": item_id, "content_index": 0, "delta": delta, **others}


def _arguments(delta: str) -> Event:
    return {"type": "response.function_call_arguments.delta", "item_id": "f", "delta": delta}


#: Python writes no integer of so many digits, so it is written here.
_HUGE: Final = '{"type":"response.output_item.done","item":{"type":"w","n":' + "1" * 4301 + "}}"


def _whole(text: str, **others: object) -> dict[str, object]:
    content = [{"type": "output_text", "annotations": [], "text": text}]
    return {"id": "m", "type": "message", "status": "completed", "content": content, "role": "assistant", **others}


_RESPONSES: Final[Mapping[str, Sequence[Event]]] = MappingProxyType(
    {
        "a message in two pieces": [
            _added(_MESSAGE),
            _text('He said "'),
            _text('no".\n'),
            _done(_whole('He said "no".\n')),
        ],
        "a message that did not stream": [_added(_MESSAGE), _done(_whole("Hi"))],
        "a message that was cut": [
            {"type": "response.created", "response": {"tools": []}},
            _added(_MESSAGE),
            _text("Hi"),
        ],
        "pieces that do not add up": [_added(_MESSAGE), _text("Hi"), _done(_whole("Hi there"))],
        "a text of as many characters that is another": [_added(_MESSAGE), _text("Hi"), _done(_whole("Ho"))],
        "lengths count characters": [_added(_MESSAGE), _text("\U0001f600"), _done(_whole("\U0001f600"))],
        "two parts and a refusal": [
            _added(_MESSAGE),
            _text("one"),
            _text("two", content_index=1),
            {"type": "response.refusal.delta", "item_id": "m", "content_index": 2, "delta": "no"},
            _done(
                {
                    "id": "m",
                    "type": "message",
                    "content": [
                        {"type": "output_text", "text": "one"},
                        {"type": "output_text", "text": "two"},
                        {"type": "refusal", "refusal": "no"},
                    ],
                    "role": "assistant",
                }
            ),
        ],
        "a call": [_added(_CALL), _arguments('{"a"'), _arguments(": 1}"), _done(_CALL | {"arguments": '{"a": 1}'})],
        "a call that did not stream, and whose item was not added": [_done(_CALL | {"arguments": "{}"})],
        "a custom call": [
            _added({"type": "custom_tool_call", "id": "u", "call_id": "c", "name": "g", "input": ""}),
            {"type": "response.custom_tool_call_input.delta", "item_id": "u", "delta": "SELECT 1"},
            _done({"type": "custom_tool_call", "id": "u", "call_id": "c", "name": "g", "input": "SELECT 1", "x": 1}),
        ],
        "reasoning with a summary": [
            _added({"type": "reasoning", "id": "r", "summary": []}),
            {"type": "response.reasoning_summary_text.delta", "item_id": "r", "summary_index": 0, "delta": "Hm."},
            {"type": "response.reasoning_summary_text.delta", "item_id": "r", "summary_index": 1, "delta": "So."},
            _done(
                {
                    "type": "reasoning",
                    "id": "r",
                    "encrypted_content": "EqQB",
                    "summary": [{"type": "summary_text", "text": "Hm."}, {"type": "summary_text", "text": "So."}],
                }
            ),
        ],
        "reasoning that has content": [_done({"type": "reasoning", "id": "r", "summary": [], "content": [{"a": 1}]})],
        "an item of another type": [
            _added({"type": "web_search_call", "id": "w"}),
            _done({"z": 1.0, "type": "w", "a": 2}),
        ],
        "deltas of another item": [
            _added(_MESSAGE),
            _text("x", "other"),
            _arguments("x"),
            _text("x", None),
            _text("y"),
        ],
        "deltas that are no text": [_added(_MESSAGE), _text(5), _text(None), _text({"a": 1}), _text("y")],
        "indices that are not there, null, and no integer": [
            _added(_MESSAGE),
            _text("a", content_index=None),
            {"type": "response.output_text.delta", "item_id": "m", "delta": "b"},
            _text("c", content_index="0"),
            '{"type":"response.output_text.delta","item_id":"m","content_index":0.0,"delta":"d"}',
            _text("e"),
        ],
        "items that are not there, null, and no object": [
            {"type": "response.output_item.added"},
            _text("x"),
            _added(_MESSAGE),
            {"type": "response.output_item.done"},
            _done(None),
            _done([]),
            _text("x"),
        ],
        "an item without an id, or with a number for one": [
            _added({"type": "message", "role": "assistant"}),
            _text("x", None),
            _added(_MESSAGE | {"id": 5}),
            _added(_MESSAGE | {"id": ""}),
            _done(_whole("x", id=5)),
        ],
        "content that is a text, and arguments that are an object": [
            _added(_MESSAGE),
            _done(_whole("") | {"content": "Hi"}),
            _added(_CALL),
            _arguments("{}"),
            _done(_CALL | {"arguments": {"a": 1}}),
        ],
        "an added item ends the one before": [
            _added(_MESSAGE),
            _text("a"),
            _added(_CALL),
            _text("b"),
            _done(_whole("a")),
        ],
        "a null status, and keys in another order": [
            _added({"role": "assistant", "status": None, "type": "message", "id": "m"}),
            _text("a"),
            _done(_whole("a", z=[1, {"y": None}], b=True)),
        ],
        "numbers of 4300 digits, and of more": [_done({"type": "w", "n": 10**4299}), _HUGE, _done({"type": "w"})],
        "a part of content that is no object": [_added(_MESSAGE), _text("a"), _done(_whole("a") | {"content": ["a"]})],
    }
)

# ----------------------------------------------------------------------------------------------------- Chat Completions


def _chunk(delta: object, **others: object) -> Event:
    return {"choices": [{"index": 0, "delta": delta, **others}]}


def _piece(**call: object) -> Event:
    return _chunk({"tool_calls": [call]})


_CHAT: Final[Mapping[str, Sequence[Event]]] = MappingProxyType(
    {
        "a message": [
            _chunk({"role": "assistant", "content": ""}),
            _chunk({"content": "Now "}, finish_reason=None),
            _chunk({"content": "look: \U0001f600"}),
            _chunk({}, finish_reason="stop"),
            "[DONE]",
        ],
        "a call behind a text": [
            _chunk({"content": "Now"}),
            _piece(index=0, id="c", type="function", function={"name": "g", "arguments": ""}),
            _piece(index=0, function={"arguments": '{"a": 1}'}),
            _chunk({}, finish_reason="tool_calls"),
        ],
        "two calls alone": [
            _piece(index=0, id="a", function={"name": "f", "arguments": "{}"}),
            _piece(index=1, id="b", function={"name": "g", "arguments": "{}"}),
            _chunk({}, finish_reason="tool_calls"),
        ],
        "calls that all have the index 0": [
            _piece(index=0, id="a", function={"name": "f", "arguments": "{}"}),
            _piece(index=0, id="b", function={"name": "g", "arguments": "{}"}),
        ],
        "an index that is not there, and then 0": [
            _piece(id="a", function={"name": "f", "arguments": "x"}),
            _piece(index=0, function={"arguments": "y"}),
            _piece(index=None, function={"arguments": "z"}),
        ],
        "an id that comes again, is empty or null": [
            _piece(index=0, id="a", function={"name": "f", "arguments": "x"}),
            _piece(index=0, id="a", function={"name": "f", "arguments": "y"}),
            _piece(index=0, id="", function={"arguments": "z"}),
            _piece(index=0, id=None, function={"arguments": "!"}),
        ],
        "a call without a name or a function": [_piece(index=0, id="a"), _piece(index=1, function=None)],
        "a piece behind a text opens a call anew": [
            _piece(index=0, id="a", function={"name": "f", "arguments": "x"}),
            _chunk({"content": "so"}),
            _piece(index=0, function={"arguments": "y"}),
        ],
        "a finish reason that is empty": [
            _chunk({"content": "a"}, finish_reason=""),
            _chunk({"content": "b"}, finish_reason=""),
            _chunk({"content": ""}, finish_reason="length"),
        ],
        "reasoning under both names, and a refusal": [
            _chunk({"reasoning": "r", "reasoning_content": "c", "refusal": "no", "content": "t"}),
            _chunk({"refusal": "!"}),
        ],
        "content that is a list": [_chunk({"content": [{"type": "text", "text": "x"}]}), _chunk({"content": "y"})],
        "arguments that are an object": [
            _piece(index=0, id="a", function={"name": "f", "arguments": {"a": 1}}),
            _piece(index=0, id="a", function={"name": "f", "arguments": "{}"}),
        ],
        "a choice that is null": [{"choices": [None]}, _chunk({"content": "x"})],
        "choices that are null, or none": [{"choices": None}, {"choices": []}, _chunk({"content": "x"})],
        "a delta that is null, or not there": [{"choices": [{"delta": None}, {}]}, _chunk({"content": "x"})],
        "two choices in turn": [
            {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]},
            {"choices": [{"index": 1, "finish_reason": "stop"}, {"index": 0, "delta": {"content": "c"}}]},
            {"choices": [{"index": 1, "finish_reason": "stop"}]},
        ],
        "a message behind the end of another": [
            _chunk({"content": "a"}, finish_reason="stop"),
            _chunk({"content": "b"}, finish_reason="stop"),
        ],
        "an index that is a text, or a number with a fraction": [
            _chunk({"content": "a"}),
            {"choices": [{"index": "0", "delta": {"content": "x"}}]},
            '{"choices":[{"index":0.0,"delta":{"content":"x"}}]}',
            _chunk({"content": "b"}),
        ],
        "half of a surrogate pair in each chunk": [
            _chunk({"content": "a"}),
            '{"choices":[{"delta":{"content":"\\ud83d"}}]}',
            '{"choices":[{"delta":{"content":"\\ude00"}}]}',
            '{"choices":[{"delta":{"content":"\\ud83d\\ude00"}}]}',
        ],
        "an error between chunks": [_chunk({"content": "a"}), {"error": {"message": "?"}}, _chunk({"content": "b"})],
        "calls and text in one chunk": [
            _chunk({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "1"}}], "content": "x"}),
        ],
    }
)

# ------------------------------------------------------------------------------------------------------------- Messages


def _block(**block: object) -> Event:
    return {"type": "content_block_start", "index": 0, "content_block": block}


def _delta(**delta: object) -> Event:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


_START: Final[Event] = {"type": "message_start", "message": {"role": "assistant", "content": []}}
_STOP: Final[Event] = {"type": "content_block_stop", "index": 0}
_END: Final[Event] = {"type": "message_stop"}
_HI: Final = _delta(type="text_delta", text="Hi")


def _input(piece: object) -> Event:
    return _delta(type="input_json_delta", partial_json=piece)


_MESSAGES: Final[Mapping[str, Sequence[Event]]] = MappingProxyType(
    {
        "thinking, text and a tool": [
            _START,
            _block(type="thinking", thinking="", signature=""),
            _delta(type="thinking_delta", thinking="Hm."),
            _delta(type="signature_delta", signature="Eq"),
            _delta(type="signature_delta", signature="QB"),
            _STOP,
            _block(type="text", text=""),
            _delta(type="text_delta", text='He said "no".'),
            _STOP,
            _block(type="tool_use", id="t", name="g", input={}),
            _input('{"a": "b '),
            _input('c", "d": 1}'),
            _STOP,
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            _END,
        ],
        "a text that began with its block": [_START, _block(type="text", text="Oh. "), _HI, _STOP, _END],
        "a message that was cut": [_START, {"type": "ping"}, _block(type="text", text=""), _HI],
        "a tool without pieces of input": [_block(type="tool_use", id="t", name="g", input={"a": 1.50}), _STOP],
        "a tool without input, or with null": [
            _block(type="tool_use", id="t", name="g"),
            _STOP,
            _block(type="tool_use", id="t", name="g", input=None),
            _STOP,
        ],
        "pieces of input that are empty or null": [
            _block(type="tool_use", id="t", name="g", input={}),
            _input(""),
            _input(None),
            _STOP,
        ],
        "a tool without an id": [_block(type="tool_use", name="g", input={}), _input("{}"), _STOP],
        "white space in a string that pieces cut": [
            _block(type="server_tool_use", id="s", name="search", input={}),
            _input('{ "a \\'),
            _input('" b'),
            _input(' \\\\" : [ 1 ,\n2 ] }'),
            _STOP,
        ],
        "a text delta inside of a tool": [_block(type="tool_use", id="t", name="g"), _HI, _input("{}"), _STOP],
        "a tool's delta inside of a text": [_block(type="text", text=""), _input("{}"), _HI, _STOP],
        "a thinking delta inside of a text": [
            _block(type="text", text=""),
            _delta(type="thinking_delta", thinking="x"),
            _delta(type="signature_delta", signature="x"),
            _HI,
            _STOP,
        ],
        "thinking behind its signature": [
            _block(type="thinking", thinking=""),
            _delta(type="signature_delta", signature="Eq"),
            _delta(type="thinking_delta", thinking="x"),
            _STOP,
        ],
        "a signature that is not there": [_block(type="thinking"), _delta(type="signature_delta"), _STOP],
        "a block of another type": [
            _START,
            _block(type="redacted_thinking", data="Em\u00fc", n=10, x=1.0),
            _HI,
            _STOP,
            _block(),
            _STOP,
            _block(type=5),
            _STOP,
            _END,
        ],
        "a block that is null, or not there": [
            _block(type="text", text=""),
            {"type": "content_block_start", "content_block": None},
            _HI,
            {"type": "content_block_start"},
            _HI,
            _STOP,
        ],
        "a block without its stop": [_START, _block(type="text"), _HI, _block(type="text"), _HI, _START, _HI, _END],
        "deltas without a type, null, or of no block": [
            _HI,
            _block(type="text", text=None),
            {"type": "content_block_delta", "delta": None},
            {"type": "content_block_delta"},
            _delta(text="x"),
            _delta(type="citations_delta", citation={}),
            _delta(type="text_delta", text=None),
            _HI,
        ],
        "a text of another type": [_block(type="text", text=5), _delta(type="text_delta", text=5), _HI, _STOP],
        "stops without a block": [_STOP, _START, _STOP, _END, _END],
        "events of other types": [{"type": "hello"}, _START, {"type": "hello"}, {"type": 5}, _block(type="text"), _HI],
        "an error at the end": [
            _START,
            _block(type="text"),
            _HI,
            {"type": "error", "error": {"type": "overloaded_error"}},
        ],
    }
)

# --------------------------------------------------------------------------------------------------------------- Gemini


def _parts(*parts: object, **others: object) -> Event:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **others}]}


_FINISH: Final[Event] = {"candidates": [{"finishReason": "STOP"}]}
_FUNCTION: Final = {"functionCall": {"name": "g", "args": {"a": 1}}}

_GEMINI: Final[Mapping[str, Sequence[Event]]] = MappingProxyType(
    {
        "a thought, a text and a call": [
            _parts({"text": "Hm.", "thought": True}),
            _parts({"text": "Now "}),
            _parts({"text": "look"}),
            _parts(_FUNCTION),
            _FINISH,
        ],
        "an end with the last part": [_parts({"text": "a"}, finishReason="STOP")],
        "a reply that was cut": [_parts({"text": "a"}), _parts({"text": "b"})],
        "a signature ends its text": [_parts({"text": "a", "thoughtSignature": "Ct"}), _parts({"text": "b"}), _FINISH],
        "a signature with an empty text": [
            _parts({"text": "a"}),
            _parts({"text": "", "thoughtSignature": "Ct"}),
            _FINISH,
        ],
        "thoughts that are false, null, or no boolean": [
            _parts({"text": "a", "thought": False}),
            _parts({"text": "b", "thought": None}),
            _parts({"text": "c", "thought": "yes"}),
            _parts({"text": "d"}),
            _FINISH,
        ],
        "an empty text": [_parts({"text": ""}), _parts({"text": "", "thought": True}), _parts({"text": "a"})],
        "an empty text alone": [_parts({"text": ""}), _FINISH],
        "a text that is none": [_parts({"text": "a"}), _parts({"text": 5}), _parts({"text": None, "x": 1}), _FINISH],
        "a thought that is no text": [_parts({"thought": True, **_FUNCTION}), _FINISH],
        "an empty part": [_parts({}), _parts({"text": "a"}), _FINISH],
        "a part that is null, or a text": [_parts(None), _parts("a"), _parts({"text": "b"}), _FINISH],
        "content and parts that are null, or not there": [
            {"candidates": [{"content": None}, {"content": {}}, {"content": {"parts": None}}, {}]},
            _parts({"text": "a"}),
        ],
        "a finish reason that is empty": [_parts({"text": "a"}, finishReason=""), _parts({"text": "b"}), _FINISH],
        "an end without a part": [_FINISH, {"candidates": []}, _parts({"text": "a"})],
        "a message behind the end of another": [_parts({"text": "a"}), _FINISH, _parts({"text": "b"}), _FINISH],
        "two candidates": [
            {"candidates": [{"content": {"parts": [{"text": "a"}]}}, {"content": {"parts": [{"text": "b"}]}}]},
            _FINISH,
        ],
        "escapes that nobody needs": ['{"candidates":[{"content":{"parts":[{"text":"a\\u003cb\\/"}]}}]}'],
        "keys and numbers as they stood": [
            (
                '{"candidates":[{"content":{"parts":[ { "b" : 1.0 , "a" : { "10" : 1e5 , "9" : -0.0 , "\\u0061" : 1 ,'
                '"10" : 12345678901234567890123 } , "c" : [ 1E+2 , -0 , 0.10 ] } ]}}]}'
            )
        ],
        "candidates that are null": [{"candidates": None}, _parts({"text": "a"})],
        "code with what is escaped in HTML": [_parts({"functionCall": {"args": {"code": "a < b && c > 'd'\u2028"}}})],
    }
)

# --------------------------------------------------------------------------------------------- streams of any API, JSON

_DEEP: Final = "[" * 127 + "]" * 127
_TOO_DEEP: Final = "[" * 127 + "]" * 127


def _any() -> dict[str, bytes]:
    hello = _chunk({"content": "a"})
    return {
        "events of no API": stream([{"hello": [1, 2]}, "5", "not JSON"]),
        "a first event of no API": stream(["hello", _START, _block(type="text"), _HI, "hello"]),
        "events behind the first are of its API or nothing": stream([_START, hello, _parts({"text": "a"}), _END]),
        "all ends of a line, and fields that do not count": (
            b"\xef\xbb\xbf: hi\r\nevent: x\rid:1\ndata:1\r\ndata\r\ndata:  2\n\ndatax: 3\ndata : 4\n\nretry: 5\n\r\n"
            b"data: 6\r\rdata: never ended\n"
        ),
        "an event in two lines": b'data: {"choices":[{"delta":\ndata: {"content":"a"}}]}\n\n',
        "NaN and infinity": stream(
            [hello, '{"choices":[],"n":NaN}', '{"choices":[{"delta":{"content":"b"},"n":Infinity}]}']
        ),
        "numbers that are none": stream(
            [hello] + [f'{{"choices":[{{"delta":{{"content":"b"}},"n":{n}}}]}}' for n in ("01", "1.", ".5", "+1", "1e")]
        ),
        "a comma too many, and text behind the end": stream(
            [hello, '{"choices":[{"delta":{"content":"b"}},]}', '{"choices":[{"delta":{"content":"b"}}]} x']
        ),
        "a control character in a string": stream([hello, '{"choices":[{"delta":{"content":"b\tc"}}]}']),
        "bytes that are no UTF-8": stream(
            [
                hello,
                b'{"choices":[{"delta":{"content":"\xff"}}]}',
                b'{"choices":[{"delta":{"content":"b"},"x":"\xed\xa0\xbd"}]}',
                b'{"choices":[{"delta":{"content":"c","\xc0\x80":1}}]}',
            ]
        ),
        "half a surrogate pair in a value that nobody reads": stream(
            [hello, '{"choices":[{"delta":{"content":"b"},"x":"\\udc00"}]}', '{"choices":[{"delta":{"content":"c"}}]}']
        ),
        "an event that begins with a byte order mark": stream([hello, '\ufeff{"choices":[{"delta":{"content":"b"}}]}']),
        "values nested as deep as may be, and deeper": stream(
            [
                hello,
                f'{{"choices":[{{"delta":{{"content":"b"}}}}],"x":{_DEEP}}}',
                f'{{"choices":[{{"delta":{{"content":"c"}}}}],"x":[{_TOO_DEEP}]}}',
                _chunk({"content": "[[" * 100}),
            ]
        ),
        "a first event that is nested too deep": stream([f'{{"choices":[],"x":[{_TOO_DEEP}]}}', hello]),
        "a name that comes twice": stream(['{"choices":[{"delta":{"content":"a"},"delta":{"content":"b"}}]}']),
        "a name that is escaped": stream(['{"ch\\u006fices":[{"delta":{"content":"a"}}]}']),
        "nothing": b"",
    }


_JSON: Final = MappingProxyType(
    {
        "a value with white space": b'{\r\n  "a" : [ 1.0 ,\t" b \\" c " ]\n}',
        "several values, and what is none": b'{ "a": 1 } [ 2 ] nonsense " and more',
        "bytes that are no UTF-8": b'{ "a": "\xff \\" ',
    }
)


def replies() -> list[FoldReply]:
    """Return all replies."""
    by_api = {"Responses": _RESPONSES, "Chat Completions": _CHAT, "Messages": _MESSAGES, "Gemini": _GEMINI}
    found = [
        FoldReply(f"{api}: {name}", "text/event-stream; charset=utf-8", stream(events))
        for api, cases in by_api.items()
        for name, events in cases.items()
    ]
    found += [FoldReply(f"stream: {name}", "Text/Event-Stream", reply) for name, reply in _any().items()]
    found += [FoldReply(f"JSON: {name}", "application/problem+json", reply) for name, reply in _JSON.items()]
    found.append(FoldReply("JSON: with a parameter", " application/JSON ; charset=utf-8", b"[ 1 ]"))
    found.append(FoldReply("bytes of another type", "application/octet-stream", b'{ "a": 1 }\r\n\xff'))
    found.append(FoldReply("bytes of no type", "", b"data: 1\n\n"))
    return found
