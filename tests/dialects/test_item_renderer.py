"""Each item goes to the handler of its kind, and what no handler can carry is said."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from segue.dialects.call_ids import CHAT_CALL_IDS
from segue.dialects.incremental import RenderedTurn, RenderState
from segue.dialects.item_renderer import ItemRenderer
from segue.dialects.loss_warnings import (
    ANNOTATIONS_LEFT_OUT,
    BARE_REASONING,
    FOREIGN_REASONING,
    PHASE_LEFT_OUT,
    field_left_out,
    item_left_out,
    part_left_out,
)
from segue.dialects.sealed_reasoning import seal
from segue.protocol.item_types import ContentPart, FunctionCallItem, MessageItem, ReasoningItem, ToolOutputItem
from tests.dialects.conversations import CHAT, MESSAGES

Json = dict[str, Any]


class Nothing(msgspec.Struct, frozen=True):
    size_bytes: int = 0


class Sealed(msgspec.Struct):
    field: str


_sealed = msgspec.json.Decoder(Sealed)


class Names(ItemRenderer[Nothing]):
    """An API whose messages are names."""

    def __init__(self) -> None:
        super().__init__(RenderState(Nothing()), CHAT, CHAT_CALL_IDS)
        self.got: list[object] = []

    def _add_message(self, message: MessageItem) -> None:
        self.got.append("".join(map(self._text, message.parts())))

    def _add_call(self, call: FunctionCallItem) -> None:
        self.got.append(call)

    def _add_output(self, output: ToolOutputItem) -> None:
        self.got.append(output)

    def _add_reasoning(self, reasoning: ReasoningItem) -> None:
        content = self._unseal(reasoning)
        sealed = None if content is None else self._read_sealed(content, _sealed)
        self.got.append(sealed)

    def finish(self) -> RenderedTurn[Nothing]:
        return RenderedTurn(b"", self._state.build(Nothing()))


def read(*items: Json) -> tuple[list[object], RenderState[Nothing]]:
    renderer = Names()
    for item in items:
        renderer.add(json.dumps(item).encode())
    return renderer.got, renderer.finish().state


def user(*parts: Json) -> Json:
    return {"type": "message", "role": "user", "content": list(parts)}


def test_each_kind_has_its_handler() -> None:
    got, state = read(
        {"role": "user", "content": "Hi"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
        {"type": "reasoning", "summary": [], "encrypted_content": seal(CHAT, '{"field":"f"}')},
    )
    assert got == ["Hi", FunctionCallItem("c", "look", "{}"), ToolOutputItem("c", "done"), Sealed("f")]
    assert (state.warnings, state.problem) == ((), None)


def test_what_has_no_counterpart_is_left_out_with_a_warning() -> None:
    got, state = read(
        {"type": "web_search_call", "id": "i"},
        {"type": "message", "role": "user", "content": "Hi", "phase": "p", "new": 1},
    )
    assert got == ["Hi"]
    assert state.warnings == (item_left_out("web_search_call"), field_left_out("new", "message"), PHASE_LEFT_OUT)


def test_a_part_is_its_text_or_its_refusal_or_a_note() -> None:
    image = {"type": "input_image", "file_id": "f"}
    cited = {"type": "output_text", "text": "a", "annotations": [{"type": "url_citation"}]}
    got, state = read(user(cited, {"type": "output_text", "text": "b", "annotations": []}))
    assert (got, state.warnings) == (["ab"], (ANNOTATIONS_LEFT_OUT,))
    got, state = read(user({"type": "refusal", "refusal": "no"}, image))
    assert got == ["no[a part of type input_image stood here and could not be passed on]"]
    assert state.warnings == (part_left_out(ContentPart("input_image", file_id="f")),)


@pytest.mark.parametrize(
    ("encrypted", "warning"),
    [
        (None, BARE_REASONING),
        ("", BARE_REASONING),
        ("x", FOREIGN_REASONING),
        (seal(MESSAGES, '{"field":"f"}'), FOREIGN_REASONING),
        (seal(CHAT, "x"), FOREIGN_REASONING),
        (seal(CHAT, "{}"), FOREIGN_REASONING),
    ],
)
def test_reasoning_that_is_not_the_providers_own_is_left_out_with_a_warning(
    encrypted: str | None, warning: str
) -> None:
    got, state = read({"type": "reasoning", "summary": [], "encrypted_content": encrypted})
    assert (got, state.warnings) == ([None], (warning,))


@pytest.mark.parametrize(
    ("item", "param"),
    [({"type": 7}, "input.type"), ({"type": "compaction"}, "input")],
)
def test_what_cannot_be_read_is_the_problem_and_the_first_one_stays(item: Json, param: str) -> None:
    got, state = read(item, {"type": "compaction", "id": "c"}, {"role": "user", "content": "Hi"})
    assert got == ["Hi"]
    assert state.problem is not None
    assert state.problem.param == param


@pytest.mark.parametrize(
    ("part", "told", "warned"),
    [
        ({"type": "text", "text": "hi"}, "hi", []),
        ({"type": "input_text", "text": "hi"}, "hi", []),
        ({"type": "magic", "text": "hi"}, "hi", ["Parts of type 'magic' were sent as their text"]),
        (
            {"type": "input_image", "image_url": "http://x", "text": "hi"},
            "hi",
            ["Parts of type 'input_image' with image_url were sent as their text"],
        ),
        (
            {"type": "magic", "image_url": {"url": "x"}},
            "[a part of type magic stood here and could not be passed on]",
            ["Parts of type 'magic' were left out"],
        ),
    ],
)
def test_a_part_of_a_type_that_the_api_lacks_is_told(part: Json, told: str, warned: list[str]) -> None:
    """As its text if it has one, else as a note; the same in every API that has messages of its own."""
    got, state = read(user(part))
    assert got == [told]
    assert [warning.partition(":")[0] for warning in state.warnings] == warned
