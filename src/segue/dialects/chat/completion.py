"""The result of a turn as a chat completion: one message of the assistant's, why it ended, and its usage.

Texts of several messages, and reasoning of several items, are joined with a blank line between them. Reasoning is shown
as `reasoning_content`, as most servers of this API call it; what its provider wants back stands in `reasoning_details`.
What this API has no word for is left out, with a warning. Not here: the same as a stream (`door_reply`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from segue.dialects.chat.reasoning_details import write_detail
from segue.protocol.codec import UNREADABLE
from segue.protocol.ids import ResponseId
from segue.protocol.item_types import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    ReasoningItem,
    read_typed_item,
)
from segue.protocol.items import Item, key_of
from segue.protocol.problems import quoted
from segue.protocol.responses import Usage
from segue.protocol.turns import Finished

Json = dict[str, Any]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

#: What stands between two texts that become one.
BETWEEN_TEXTS = "\n\n"
#: The reasons for a cut answer that this API has a word for. Any other is a limit of some kind.
_CUTS: Mapping[str, FinishReason] = MappingProxyType({"content_filter": "content_filter"})


class CompletionHead(msgspec.Struct, frozen=True):
    """What every chunk of a completion says, and the completion itself; time in unix seconds."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk"]
    created: int
    model: str


class _ToldAlternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _ToldToken(_ToldAlternative):
    top_logprobs: list[_ToldAlternative] = []


_logprobs = msgspec.json.Decoder(list[_ToldToken])


class _MessageLogprobs(msgspec.Struct):
    logprobs: msgspec.Raw = msgspec.Raw(b"[]")


class _LoggedItem(msgspec.Struct):
    content: list[_MessageLogprobs] = []


_logged = msgspec.json.Decoder(_LoggedItem)


def completion_id(response_id: ResponseId) -> str:
    """Return the id of the completion that a response is."""
    return f"chatcmpl-{response_id.removeprefix('resp_')}"


def read_logprobs(raw: msgspec.Raw) -> list[_ToldToken]:
    """Return log probabilities with all that this API has of them; none where they are not as the API has them."""
    try:
        return _logprobs.decode(raw)
    except UNREADABLE:
        return []


def completion_fields(head: CompletionHead, finished: Finished, warnings: Sequence[str] = ()) -> Json:
    """Return the completion that a turn ended in."""
    message = completion_message(finished.output)
    value: Json = msgspec.structs.asdict(head)
    value["choices"] = [
        {
            "index": 0,
            "message": message,
            "logprobs": _all_logprobs(finished.output),
            "finish_reason": finish_reason(finished),
        }
    ]
    if finished.head.usage is not None:
        value["usage"] = completion_usage(finished.head.usage)
    told = all_warnings(finished, warnings)
    return value | ({"warnings": told} if told else {})


def all_warnings(finished: Finished, warnings: Iterable[str]) -> list[str]:
    """Return what was left out: of the request, by the upstream, and of the answer."""
    told = finished.head.warnings
    kinds = dict.fromkeys(key_of(item).kind for item in finished.output)
    return [
        *warnings,
        *(() if isinstance(told, msgspec.UnsetType) else told),
        *(
            f"Items of type {quoted(kind)} were left out: this API has nothing like them."
            for kind in kinds
            if kind not in _KINDS
        ),
    ]


def finish_reason(finished: Finished) -> FinishReason:
    """Return why the answer ended."""
    if finished.status == "completed":
        called = any(key_of(item).kind in _CALLS for item in finished.output)
        return "tool_calls" if called else "stop"
    details = finished.head.incomplete_details
    return "length" if details is None else _CUTS.get(details.reason, "length")


def completion_usage(usage: Usage) -> Json:
    """Return the usage in this API's words."""
    sent, made = usage.input_tokens_details, usage.output_tokens_details
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": sent.cached_tokens,
            "cache_write_tokens": sent.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {"reasoning_tokens": made.reasoning_tokens, "audio_tokens": 0},
    }


def completion_message(output: Sequence[Item]) -> Json:
    """Return the message that the items of an answer are together."""
    parts = _MessageParts()
    for index, item in enumerate(output):
        parts.add(item, index)
    return parts.message()


class _MessageParts:
    """Collects what the items of an answer say."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._thoughts: list[str] = []
        self._annotations: list[Json] = []
        self._details: list[Json] = []
        self._calls: list[Json] = []

    def add(self, item: Item, index: int) -> None:
        """Take the next item."""
        match read_typed_item(item, key_of(item).kind):
            case MessageItem() as message:
                self._add_message(message)
            case ReasoningItem() as reasoning:
                self._thoughts += [part.text for part in (*reasoning.summary, *(reasoning.content or ()))]
                detail = write_detail(item, index)
                self._details += [] if detail is None else [detail]
            case FunctionCallItem() as call:
                function = {"name": call.name, "arguments": call.arguments}
                self._calls.append({"id": call.call_id, "type": "function", "function": function})
            case CustomToolCallItem() as call:
                custom = {"name": call.name, "input": call.input}
                self._calls.append({"id": call.call_id, "type": "custom", "custom": custom})
            case _:  # `all_warnings` names it
                pass

    def _add_message(self, message: MessageItem) -> None:
        parts = message.parts()
        text = "".join(part.text for part in parts if part.text is not None)
        refusal = "".join(part.refusal for part in parts if part.refusal is not None)
        self._texts += [text] if text else []
        self._refusals += [refusal] if refusal else []
        cited = [url_citation(one) for part in parts for one in part.annotations or ()]
        self._annotations += [citation for citation in cited if citation is not None]

    def message(self) -> Json:
        """Return the message."""
        text: str | None = BETWEEN_TEXTS.join(self._texts)
        refusal = BETWEEN_TEXTS.join(self._refusals) or None
        if not text and (self._calls or refusal):
            text = None
        message: Json = {"role": "assistant", "content": text, "refusal": refusal, "annotations": self._annotations}
        thought = BETWEEN_TEXTS.join(text for text in self._thoughts if text)
        others = {"reasoning_content": thought, "reasoning_details": self._details, "tool_calls": self._calls}
        return message | {name: value for name, value in others.items() if value}


def url_citation(annotation: object) -> Json | None:
    """Return an annotation as this API has it; None for one that it has not."""
    if not isinstance(annotation, dict) or annotation.get("type") != "url_citation":
        return None
    return {"type": "url_citation", "url_citation": {name: annotation[name] for name in annotation if name != "type"}}


def _all_logprobs(output: Sequence[Item]) -> Json | None:
    tokens = [
        token
        for item in output
        if b'"logprobs":[{' in item and key_of(item).kind == "message"
        for part in _logged.decode(item).content
        for token in read_logprobs(part.logprobs)
    ]
    return {"content": tokens, "refusal": None} if tokens else None


_CALLS = frozenset({"function_call", "custom_tool_call"})
_KINDS = frozenset({*_CALLS, "message", "reasoning"})
