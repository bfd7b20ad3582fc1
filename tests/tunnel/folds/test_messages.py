from __future__ import annotations

from segue.tunnel.folds.fold import Fold
from tests.tunnel import replies

HEAD = b'},{"role":"assistant","content":['


def fold(stream: bytes) -> bytes:
    folded = Fold(b"text/event-stream")
    folded.feed(stream)
    return folded.value


def test_blocks_fold_to_what_a_request_repeats() -> None:
    stream = replies.messages(
        {"type": "thinking", "thinking": "Hm.\n", "signature": "EqQB"},
        {"type": "text", "text": 'He said "no".'},
        {"type": "tool_use", "id": "toolu_1", "name": "read", "input": '{"path": "a b", "n": [1, 2]}'},
    )
    assert fold(stream) == HEAD + (
        b'{"type":"thinking","thinking":"Hm.\\n","signature":"EqQB"},'
        b'{"type":"text","text":"He said \\"no\\"."},'
        b'{"type":"tool_use","id":"toolu_1","name":"read","input":{"path":"a b","n":[1,2]}},]}'
    )


def test_a_tool_without_input_has_the_one_of_its_start() -> None:
    assert fold(replies.messages({"type": "tool_use", "id": "t", "name": "now", "input": ""})) == HEAD + (
        b'{"type":"tool_use","id":"t","name":"now","input":{}},]}'
    )


def test_blocks_of_other_types_are_written_as_they_came() -> None:
    assert fold(replies.messages({"type": "redacted_thinking", "data": "EmwK"})) == HEAD + (
        b'{"type":"redacted_thinking","data":"EmwK"},]}'
    )


def test_what_has_streamed_of_a_cut_reply_is_there() -> None:
    stream = replies.messages({"type": "text", "text": "abcdefghi"})
    assert fold(stream[: stream.index(b'"text":"ghi"')]) == HEAD + b'{"type":"text","text":"abcdef'


def test_deltas_of_no_block_and_of_unknown_kinds_are_nothing() -> None:
    stray = replies.typed("content_block_delta", delta={"type": "text_delta", "text": "x"})
    start = replies.typed("content_block_start", content_block={"type": "text", "text": "Hi"})
    citation = replies.typed("content_block_delta", delta={"type": "citations_delta", "citation": {"url": "u"}})
    assert fold(stray + start + citation) == b'{"type":"text","text":"Hi'


def test_a_block_that_begins_without_a_text_has_only_what_comes() -> None:
    start = replies.typed("content_block_start", content_block={"type": "text"})
    delta = replies.typed("content_block_delta", delta={"type": "text_delta", "text": "Hi"})
    assert fold(start + delta) == b'{"type":"text","text":"Hi'


def test_a_tool_that_runs_at_the_provider_is_a_tool() -> None:
    block: dict[str, object] = {"type": "server_tool_use", "id": "s", "name": "search", "caller": {}, "input": {}}
    start = replies.typed("content_block_start", content_block=block)
    delta = replies.typed("content_block_delta", delta={"type": "input_json_delta", "partial_json": '{"q": 1}'})
    stop = replies.typed("content_block_stop")
    assert fold(start + delta + stop) == b'{"type":"server_tool_use","id":"s","name":"search","input":{"q":1}},'
