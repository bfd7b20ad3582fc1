"""The renderer of an API that has messages of its own: it reads each item and calls the handler of its kind.

What is the same for all such APIs is done here: an item's type and unknown fields, the warnings about what they cannot
carry, and reasoning that goes back only to the provider that wrote it. A dialect writes the handlers. Not here: how
messages are written, and the Responses dialect, whose items stay as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import msgspec

from segue.dialects.call_ids import CallIdForm
from segue.dialects.incremental import M, RenderState, RenderStateBuilder
from segue.dialects.items import call_arguments, read_item, unknown_fields
from segue.dialects.loss_warnings import (
    ANNOTATIONS_LEFT_OUT,
    BROKEN_ARGUMENTS,
    FOREIGN_REASONING,
    PHASE_LEFT_OUT,
    field_left_out,
    in_place_of,
    item_left_out,
    part_as_text,
    part_left_out,
    reasoning_left_out,
)
from segue.dialects.sealed_reasoning import unseal
from segue.protocol.codec import UNREADABLE
from segue.protocol.item_types import (
    TEXT_PARTS,
    ContentPart,
    FunctionCallItem,
    MessageItem,
    ReasoningItem,
    ToolOutputItem,
)
from segue.protocol.items import CONFIGURATION, Item
from segue.protocol.problems import Problem

T = TypeVar("T")


def system_note(text: str) -> str:
    """Return a text of the system's as a text of the user's, for an API that takes no message of the system's there."""
    return f"<system>\n{text}\n</system>"


#: What a model reads as the output of a call that has none: an answer that was cut may end in one.
NO_OUTPUT = "[there is no output of this call]"


def late_output_note(call_id: str) -> str:
    """Return what stands before an output that does not follow its call, where it cannot be an output any more."""
    return f"[output of the earlier tool call {call_id}]"


class ItemRenderer(ABC, Generic[M]):
    """Renders the items of one turn, from where `state` stands; `provider` is whose reasoning may go back to it.

    A handler of calls and outputs gets the id as the items have it; `_call_id` and `_output_id` return the id that the
    provider gets, and must be asked once for each item.
    """

    def __init__(self, state: RenderState[M], provider: str, call_ids: CallIdForm) -> None:
        self._provider = provider
        self._state = RenderStateBuilder(state, call_ids)
        self._closed: list[bytes] = []

    def add(self, item: Item) -> None:
        """Take the next item."""
        head = self._state.read_head(item)
        if head is None or head.kind in CONFIGURATION:  # the settings of the request have what the latter say
            return
        kind = head.kind
        for name in unknown_fields(item, kind):
            self._state.warn(field_left_out(name, kind))
        value = read_item(item, kind)
        match value:
            case Problem():
                self._state.refuse(value)
            case None:
                self._state.warn(item_left_out(kind))
            case MessageItem():
                if value.phase is not None:
                    self._state.warn(PHASE_LEFT_OUT)
                self._add_message(value)
            case FunctionCallItem():
                self._add_call(value)
            case ToolOutputItem():
                self._add_output(value)
            case ReasoningItem():
                self._add_reasoning(value)

    @abstractmethod
    def _add_message(self, message: MessageItem) -> None: ...

    @abstractmethod
    def _add_call(self, call: FunctionCallItem) -> None: ...

    @abstractmethod
    def _add_output(self, output: ToolOutputItem) -> None: ...

    @abstractmethod
    def _add_reasoning(self, reasoning: ReasoningItem) -> None: ...

    def _call_id(self, call: FunctionCallItem) -> str:
        return self._state.call_ids.map_call(call.call_id)

    def _output_id(self, output: ToolOutputItem) -> str:
        return self._state.call_ids.map_output(output.call_id)

    def _arguments(self, call: FunctionCallItem) -> str:
        """Return a call's arguments as a JSON object."""
        arguments = call_arguments(call.arguments)
        if arguments != call.arguments and call.arguments.strip():
            self._state.warn(BROKEN_ARGUMENTS)
        return arguments

    def _text(self, part: ContentPart) -> str:
        """Return the text of a part, or the note that stands in its place."""
        if part.annotations:
            self._state.warn(ANNOTATIONS_LEFT_OUT)
        if part.text is not None:
            if part.type not in TEXT_PARTS:
                self._state.warn(part_as_text(part))
            return part.text
        if part.refusal is not None:
            return part.refusal
        self._state.warn(part_left_out(part))
        return in_place_of(part)

    def _unseal(self, reasoning: ReasoningItem) -> str | None:
        """Return what this provider sealed in its own reasoning; None for any other reasoning, with a warning."""
        sealed = None if reasoning.encrypted_content is None else unseal(reasoning.encrypted_content)
        if sealed is not None and sealed.provider == self._provider:
            return sealed.content
        self._state.warn(reasoning_left_out(reasoning))
        return None

    def _read_sealed(self, content: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        """Read what was unsealed; None if it is not what we sealed, with a warning."""
        try:
            return decoder.decode(content)
        except UNREADABLE:
            self._state.warn(FOREIGN_REASONING)
            return None
