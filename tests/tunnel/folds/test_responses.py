from __future__ import annotations

import pytest

from segue.tunnel.folds.fold import Fold
from tests.tunnel import replies

TEXT = 'He said "no".\n'
MESSAGE: dict[str, object] = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": TEXT}],
    "role": "assistant",
}
CALL: dict[str, object] = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "arguments": '{"path": "a"}',
    "call_id": "call_1",
    "name": "read",
}
CUSTOM: dict[str, object] = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_2",
    "input": "*** Begin",
    "name": "patch",
}
REASONING: dict[str, object] = {
    "id": "rs_1",
    "type": "reasoning",
    "encrypted_content": "gAAA",
    "summary": [{"type": "summary_text", "text": "First"}, {"type": "summary_text", "text": "Then"}],
}
FOLDED = {
    "message": (
        b',{"type":"message","status":"completed","id":"msg_1","role":"assistant",'
        b'"content":[{"type":"output_text","text":"He said \\"no\\".\\n","annotations":[],"logprobs":[]}]}'
    ),
    "function_call": (
        b',{"type":"function_call","status":"completed","id":"fc_1","name":"read",'
        b'"arguments":"{\\"path\\": \\"a\\"}","call_id":"call_1"}'
    ),
    "custom_tool_call": (
        b',{"type":"custom_tool_call","id":"ctc_1","status":"completed","call_id":"call_2","name":"patch",'
        b'"input":"*** Begin"}'
    ),
    "reasoning": (
        b',{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"First"},'
        b'{"type":"summary_text","text":"Then"}],"content":null,"encrypted_content":"gAAA"}'
    ),
}
ITEMS = [MESSAGE, CALL, CUSTOM, REASONING]


def fold(stream: bytes) -> bytes:
    folded = Fold(b"text/event-stream")
    folded.feed(stream)
    return folded.value


def done(item: dict[str, object]) -> bytes:
    return replies.typed("response.output_item.done", output_index=0, item=item)


def added(item: dict[str, object]) -> bytes:
    return replies.typed("response.output_item.added", output_index=0, item=item)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["type"])
def test_an_item_folds_to_what_a_request_repeats_once(item: dict[str, object]) -> None:
    assert fold(replies.responses(item)) == FOLDED[str(item["type"])]


@pytest.mark.parametrize("item", [CALL, CUSTOM, REASONING], ids=lambda item: item["type"])
def test_an_item_that_did_not_stream_folds_to_the_same(item: dict[str, object]) -> None:
    assert fold(added(item) + done(item)) == FOLDED[str(item["type"])]
    assert fold(done(item)) == FOLDED[str(item["type"])]


def test_a_message_that_did_not_stream_is_written_with_its_last_event() -> None:
    part = b'[{"type":"output_text","annotations":[],"logprobs":[],"text":"He said \\"no\\".\\n"}]}'
    assert fold(added(MESSAGE) + done(MESSAGE)).endswith(b'"content":' + part)


def test_items_follow_each_other() -> None:
    assert fold(replies.responses(*ITEMS)) == b"".join(FOLDED[str(item["type"])] for item in ITEMS)


def test_what_has_streamed_of_a_cut_reply_is_there() -> None:
    stream = replies.responses(MESSAGE)
    cut = stream[: stream.index(b'"delta":"no')]
    assert fold(cut).endswith(b'"content":[{"type":"output_text","text":"He said \\"')


def test_parts_of_a_message_follow_each_other() -> None:
    parts = [{"type": "output_text", "text": "One", "annotations": [1]}, {"type": "refusal", "refusal": "No"}]
    assert fold(replies.responses(MESSAGE | {"content": parts})).endswith(
        b'"content":[{"type":"output_text","text":"One","annotations":[],"logprobs":[]},'
        b'{"type":"refusal","refusal":"No"}]}'
    )


def test_annotations_of_the_last_part_and_other_keys_of_the_item_are_kept() -> None:
    parts = [{"type": "output_text", "text": "One", "annotations": [{"url": "u"}]}]
    assert fold(replies.responses(MESSAGE | {"content": parts, "phase": "commentary"})).endswith(
        b'"text":"One","annotations":[{"url":"u"}]}],"phase":"commentary"}'
    )


def test_an_item_whose_pieces_do_not_add_up_is_written_whole() -> None:
    lost = replies.typed("response.function_call_arguments.delta", item_id="fc_1", delta='{"pa')
    assert fold(added(CALL) + lost + done(CALL)).endswith(b'"arguments":"{\\"pa' + FOLDED["function_call"])


def test_pieces_of_another_item_are_left_to_its_end() -> None:
    stray = replies.typed("response.function_call_arguments.delta", item_id="fc_2", delta="x")
    wrong = replies.typed("response.output_text.delta", item_id="fc_1", delta="x")
    assert fold(added(CALL) + stray + wrong + done(CALL)) == FOLDED["function_call"]


def test_items_of_other_types_are_written_as_they_came() -> None:
    item: dict[str, object] = {"id": "ig_1", "type": "image_generation_call", "result": "iVBOR"}
    assert fold(added(item) + done(item)) == b',{"id":"ig_1","type":"image_generation_call","result":"iVBOR"}'


def test_a_message_of_several_parts_has_them_in_order() -> None:
    part = {"type": "output_text", "text": "ab", "annotations": [], "logprobs": []}
    item = MESSAGE | {"content": [part, part, {"type": "refusal", "refusal": "no"}]}
    text = b'{"type":"output_text","text":"ab","annotations":[],"logprobs":[]},'
    assert fold(replies.responses(item)).endswith(b'"content":[' + text + text + b'{"type":"refusal","refusal":"no"}]}')


def test_an_item_that_ends_while_another_one_is_open_is_written_whole() -> None:
    assert fold(added(CALL) + done(CUSTOM)).endswith(FOLDED["custom_tool_call"])


def test_no_item_is_open_behind_the_end_of_one() -> None:
    nameless = CUSTOM | {"id": ""}
    expected = FOLDED["custom_tool_call"] + FOLDED["custom_tool_call"].replace(b"ctc_1", b"")
    assert fold(replies.responses(CUSTOM) + done(nameless)) == expected


@pytest.mark.parametrize("content", [["no part"], [7]], ids=str)
def test_what_streamed_and_ends_as_something_else_is_written_whole(content: list[object]) -> None:
    delta = replies.typed("response.output_text.delta", item_id="msg_1", content_index=0, delta="He")
    odd = MESSAGE | {"content": content}
    assert fold(added(MESSAGE) + delta + done(odd)).endswith(b'"content":%s}' % str(content).replace("'", '"').encode())


def test_an_item_whose_type_is_no_text_is_written_as_it_came() -> None:
    assert fold(done({"type": [], "id": "x"})) == b',{"type":[],"id":"x"}'
