"""Checks lean streams: `LeanStreamChecker` writes the events that a lean stream leaves out, and judges the whole.

So a lean stream is right if it leaves out what `segue.protocol.lean_stream` names and nothing else, its numbers rise,
and it says all that a stream by the document says: a delta must be of a text of the item that follows, and the items,
their order and the end are judged like those of any stream. Give the class to `SocketChecker` or `check_sse`. Not here:
streams that were resumed in the middle.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from segue.protocol.lean_stream import LEFT_OUT, TEXTS, WHOLE_ITEMS, LeanResponse
from segue.protocol.requests import Settings
from segue.protocol.responses import encode_echo
from segue.testing.protocol_checker import StreamChecker, Transport
from segue.testing.response_schemas import Json, ProtocolViolation, check_object, short

#: What a whole response object has and a lean one leaves out. Whether the response is a background one is not known.
_NULLS: Final = dict.fromkeys(("completed_at", "error", "incomplete_details", "usage", "previous_response_id"))
_ECHO: Final[Json] = json.loads(encode_echo(Settings(model="unknown"), store=False, background=True))
_MEMBERS: Final = {*LeanResponse.__struct_fields__, "output"}
#: The name of a text's events, and the member that holds it, by the type of its part.
_TEXT_OF_PART: Final = {
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "summary_text": ("reasoning_summary_text", "text"),
    "reasoning_text": ("reasoning_text", "text"),
}
_TEXT_OF_CALL: Final = {
    "function_call": ("function_call_arguments", "arguments"),
    "custom_tool_call": ("custom_tool_call_input", "input"),
}


class LeanStreamChecker(StreamChecker):
    """Checks the events of one lean stream. `lean_frames` holds what was fed, `frames` the whole stream made of it."""

    def __init__(self, transport: Transport, *, stream_id: str | None = None) -> None:
        super().__init__(transport, stream_id=stream_id)
        self.lean_frames: list[Json] = []
        self._deltas: dict[int, list[Json]] = defaultdict(list)
        self._output: list[Json] = []

    def feed(self, frame: Json) -> None:
        """Check the next frame, and feed what it stands for to the checker of whole streams."""
        try:
            check_object("frame", frame)
            self._check_lean(frame)
            self.lean_frames.append(frame)
            for event in self._whole(frame):
                number = {} if frame.get("type") == "error" else {"sequence_number": len(self.frames)}
                lane = {} if self.stream_id is None else {"stream_id": self.stream_id}
                super().feed({**event, **number, **lane})
        except ProtocolViolation as violation:
            self._violation = self._violation or violation
            raise

    def _check_lean(self, frame: Json) -> None:
        kind, number = frame.get("type"), frame.get("sequence_number")
        where = f"lean #{len(self.lean_frames)} {kind}"
        last = self.lean_frames[-1]["sequence_number"] if self.lean_frames else -1
        if kind != "error" and not (isinstance(number, int) and number > last):
            raise ProtocolViolation(where, "sequence_number", f"{short(number)} does not rise above {last}")
        if kind == "response.created" and number != 0:
            raise ProtocolViolation(where, "sequence_number", f"{short(number)} is not the first")
        if frame.get("stream_id") != self.stream_id:
            raise ProtocolViolation(where, "stream_id", f"is {short(frame.get('stream_id'))}")
        item = frame.get("item")
        whole = isinstance(item, dict) and item.get("type") in WHOLE_ITEMS
        if kind in LEFT_OUT or (kind == "response.output_item.added" and whole):
            raise ProtocolViolation(where, "type", "is left out of a lean stream")
        response = frame.get("response")
        if isinstance(response, dict):
            known = sorted(response.keys() - _MEMBERS)
            if known or response.get("output") != []:
                raise ProtocolViolation(where, "response", f"holds what is left out: {', '.join(known) or 'output'}")

    def _whole(self, frame: Json) -> Iterator[Json]:
        """Yield the events that a frame of a lean stream stands for."""
        kind = frame.get("type")
        if kind in TEXTS:
            self._deltas[frame.get("output_index", 0)].append(frame)  # they wait for their item
        elif kind == "response.output_item.done":
            yield from self._item(frame)
        elif isinstance(frame.get("response"), dict):
            response = {**_NULLS, **_ECHO, **frame["response"]}
            yield {**frame, "response": {**response, "output": self._output}}
            if kind == "response.created":
                yield {**frame, "type": "response.in_progress", "response": response}
        else:
            yield frame

    def _item(self, done: Json) -> Iterator[Json]:
        item, index = done.get("item"), done.get("output_index")
        if isinstance(item, dict) and isinstance(index, int) and item.get("type") in WHOLE_ITEMS:
            yield from _beginning(item, index)
            yield from self._texts(item, {"item_id": item.get("id"), "output_index": index})
            if self._deltas.pop(index, []):
                where = f"lean #{len(self.lean_frames)} response.output_item.done"
                raise ProtocolViolation(where, "item", "lacks a text that had deltas")
        self._output.append(item or {})
        yield done

    def _texts(self, item: Json, at: Json) -> Iterator[Json]:
        if item["type"] in _TEXT_OF_CALL:
            name, member = _TEXT_OF_CALL[item["type"]]
            yield {"type": f"response.{name}.delta", **at, "delta": item.get(member)}
            named = {"name": item["name"]} if name == "function_call_arguments" and "name" in item else {}
            yield {"type": f"response.{name}.done", **at, member: item.get(member), **named}
            return
        for group, event in (("summary", "reasoning_summary_part"), ("content", "content_part")):
            for index, part in enumerate(item.get(group) or ()):
                yield from self._part(part, event, {**at, f"{group}_index": index})

    def _part(self, part: Json, event: str, at: Json) -> Iterator[Json]:
        """Yield the events of a part; its deltas are those of the stream, if there were any."""
        name, member = _TEXT_OF_PART.get(part.get("type", ""), ("output_text", "text"))
        logprobs = {"logprobs": part.get("logprobs", [])} if name == "output_text" else {}
        empty: Json = {key: [] for key in ("annotations", "logprobs") if key in part}
        yield {"type": f"response.{event}.added", **at, "part": {**part, member: "", **empty}}
        deltas = self._taken(name, at)
        yield from deltas
        if not deltas and part.get(member):
            yield {"type": f"response.{name}.delta", **at, "delta": part[member], **logprobs}
        for index, annotation in enumerate(part.get("annotations", ())):
            kind = "response.output_text.annotation.added"
            yield {"type": kind, **at, "annotation_index": index, "annotation": annotation}
        yield {"type": f"response.{name}.done", **at, member: part.get(member), **logprobs}
        yield {"type": f"response.{event}.done", **at, "part": part}

    def _taken(self, name: str, at: Json) -> list[Json]:
        """Take the deltas of one text."""
        names = {f"response.{name}.delta"} | ({"response.reasoning.delta"} if name == "reasoning_text" else set())
        waiting = self._deltas[at["output_index"]]
        own = [one for one in waiting if one["type"] in names and at.items() <= one.items()]
        self._deltas[at["output_index"]] = [one for one in waiting if one not in own]
        return own


def _beginning(item: Json, index: int) -> Iterator[Json]:
    empty: dict[str, Any] = {"content": [], "summary": [], "arguments": "", "input": ""}
    added = {**item, **{key: value for key, value in empty.items() if key in item}}
    added |= {"status": "in_progress"} if "status" in item else {}
    added.pop("encrypted_content", None)
    yield {"type": "response.output_item.added", "output_index": index, "item": added}
