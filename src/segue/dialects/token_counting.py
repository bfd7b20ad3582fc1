"""Counting the tokens of an input at a provider, for the APIs that have an endpoint for it.

The endpoint takes some of the fields of a request, and answers with one number. What is counted is therefore rendered
as a turn is, and cut down to those fields. That costs O(history), which is fine where it is rare. Not here: asking.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from segue.dialects.interface import CountingEndpoint, Rendered
from segue.protocol.codec import UNREADABLE, encode

#: https://platform.openai.com/docs/api-reference/responses/input-tokens
RESPONSES_COUNTING = CountingEndpoint(
    "/responses/input_tokens",
    frozenset(
        {
            *("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls"),
            *("text", "reasoning", "truncation"),
        }
    ),
)
#: https://docs.anthropic.com/en/api/messages-count-tokens
MESSAGES_COUNTING = CountingEndpoint(
    "/messages/count_tokens",
    frozenset({"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}),
)


class _Counted(msgspec.Struct):
    input_tokens: Annotated[int, Meta(ge=0)]


_fields = msgspec.json.Decoder(dict[str, Raw])
_counted = msgspec.json.Decoder(_Counted)


def counting_body(rendered: Rendered, endpoint: CountingEndpoint) -> bytes:
    """Return the body that a counting endpoint takes."""
    fields = _fields.decode(rendered.body)
    return encode({name: value for name, value in fields.items() if name in endpoint.fields})


def read_count(body: bytes) -> int | None:
    """Read the answer of a counting endpoint; None if it is none."""
    try:
        return _counted.decode(body).input_tokens
    except UNREADABLE:
        return None
