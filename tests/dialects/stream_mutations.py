"""Reply streams that are not as they should be: those in `streams/`, and what servers, proxies and links do to them.

There are two sorts of changes. A *harmless* one leaves what the stream says: a text is cut at another place, a chunk
comes that holds nothing. An *odd* one may alter it: events are lost, doubled and moved, a value is of another type, an
index or an id is another one, an error comes in between. Not here: what must hold of the answers
(`test_stream_mutations`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from segue.http.sse import SseEvent
from tests.dialects.golden import GOLDEN, dialect_of, read

#: The type of an event, and what it carries: JSON, or a text that is none.
Line = tuple[str, Any]
Json = dict[str, Any]
Change = Callable[[st.DrawFn, list[Line]], None]

ERRORS: dict[str, list[Line]] = {
    "chat": [
        ("", {"error": {"message": "boom", "code": 500}}),
        ("error", {"message": "boom"}),
    ],
    "messages": [
        ("error", {"type": "error", "error": {"type": "overloaded_error", "message": "boom"}}),
        ("", {"type": "error", "error": {"type": "api_error", "message": "boom"}}),
    ],
    "responses": [
        ("error", {"type": "error", "code": "server_error", "message": "boom", "param": None, "sequence_number": 3}),
        ("response.failed", {"type": "response.failed", "response": {"error": {"code": "x", "message": "boom"}}}),
    ],
}

_ODD: tuple[Any, ...] = (
    *(None, "", "0", "null", "x", "x" * 70, 0, -1, 1, 1.5, True, 2**70, float("nan")),
    *([], [None], [{}], {}, {"a": {"b": [1]}}),
)
_HALVES = ("\ud83d", "\ude00", "a\ud83d", "\ude00b")
_GARBAGE = ("", "{", "null", "[]", "7", "<html>", "[DONE]", "data", '{"choices":[', "\ud800")
_INDEXES = ("index", "output_index", "content_index", "summary_index", "sequence_number")
_IDS = ("id", "item_id", "call_id", "name")
_WORDS = ("type", "finish_reason", "stop_reason", "status", "role", "object")


_STREAMS = {name: [(event.type, event.data.decode()) for event in read(path)[0]] for name, path in GOLDEN.items()}
NAMES = {dialect: [name for name in _STREAMS if dialect_of(name) == dialect] for dialect in ERRORS}


def load(name: str) -> list[Line]:
    """Return a stream of `streams/`, to be changed."""
    return [(kind, _parse(text)) for kind, text in _STREAMS[name]]


def write(lines: list[Line]) -> list[SseEvent]:
    return [
        SseEvent(kind, (it if isinstance(it, str) else json.dumps(it)).encode("utf-8", "replace")) for kind, it in lines
    ]


def _parse(text: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except ValueError:
        return text


def places(value: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - any JSON
    """Every place of a value in a JSON value: what holds it, and its key or index."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


_all_lines = {dialect: [line for name in names for line in load(name)] for dialect, names in NAMES.items()}
_words = sorted(
    {
        parent[key]
        for lines in _all_lines.values()
        for _, value in lines
        for parent, key in places(value)
        if key in _WORDS and isinstance(parent[key], str)
    }
    | {"", "null", "error", "length", "max_tokens"}
)

# --------------------------------------------------------------------------------------------------------- odd changes


def lose(draw: st.DrawFn, lines: list[Line]) -> None:
    del lines[_at(draw, lines)]


def repeat(draw: st.DrawFn, lines: list[Line]) -> None:
    """An event comes again: at once, or later."""
    at = _at(draw, lines)
    to = draw(st.integers(at, len(lines)) | st.just(at + 1))
    lines.insert(to, deepcopy(lines[at]))


def move(draw: st.DrawFn, lines: list[Line]) -> None:
    line = lines.pop(_at(draw, lines))
    lines.insert(draw(st.integers(0, len(lines))), line)


def cut(draw: st.DrawFn, lines: list[Line]) -> None:
    del lines[_at(draw, lines) :]


def begin_late(draw: st.DrawFn, lines: list[Line]) -> None:
    del lines[: _at(draw, lines)]


def spoil(draw: st.DrawFn, lines: list[Line]) -> None:
    """A value anywhere is another one, most often of another type."""
    _set(draw, lines, lambda _: True, st.sampled_from(_ODD + _HALVES))


def drop_field(draw: st.DrawFn, lines: list[Line]) -> None:
    found = _find(draw, lines, lambda key: isinstance(key, str))
    if found is not None:
        parent, key = found
        del parent[key]


def renumber(draw: st.DrawFn, lines: list[Line]) -> None:
    _set(draw, lines, lambda key: key in _INDEXES, st.integers(-1, 3) | st.sampled_from(_ODD))


def rename(draw: st.DrawFn, lines: list[Line]) -> None:
    """An id or a name is another one, perhaps that of another item."""
    ids = [parent[key] for _, value in lines for parent, key in places(value) if key in _IDS]
    _set(draw, lines, lambda key: key in _IDS, st.sampled_from([*ids, "", None, "new", 7]))


def retype(draw: st.DrawFn, lines: list[Line]) -> None:
    """A word that says what something is says something else."""
    _set(draw, lines, lambda key: key in _WORDS, st.sampled_from(_words))


def interrupt(draw: st.DrawFn, lines: list[Line]) -> None:
    """Something comes in between: garbage, an end, an event of this API or of another."""
    strange = st.sampled_from([("", text) for text in _GARBAGE])
    other = st.sampled_from([line for dialect in sorted(_all_lines) for line in _all_lines[dialect]])
    lines.insert(draw(st.integers(0, len(lines))), deepcopy(draw(strange | other)))


ODD: list[Change] = [
    *(lose, repeat, move, cut, begin_late, spoil, drop_field, renumber, rename, retype, interrupt),
]


def _at(draw: st.DrawFn, lines: list[Line]) -> int:
    return draw(st.integers(0, len(lines) - 1))


def _find(draw: st.DrawFn, lines: list[Line], fits: Callable[[Any], bool]) -> tuple[Any, Any] | None:
    found = [place for _, value in lines for place in places(value) if fits(place[1])]
    return found[draw(st.integers(0, len(found) - 1))] if found else None


def _set(draw: st.DrawFn, lines: list[Line], fits: Callable[[Any], bool], values: st.SearchStrategy[Any]) -> None:
    found = _find(draw, lines, fits)
    if found is not None:
        parent, key = found
        parent[key] = deepcopy(draw(values))


@st.composite
def odd_streams(draw: st.DrawFn, dialect: str) -> tuple[list[Line], tuple[str, ...]]:
    """A stream with some odd changes, perhaps with an error in it; and the names of what was changed."""
    lines = load(draw(st.sampled_from(NAMES[dialect])))
    changed = []
    for change in draw(st.lists(st.sampled_from(ODD), min_size=1, max_size=4)):
        if lines:
            change(draw, lines)
            changed.append(change.__name__)
    if draw(st.integers(0, 7)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(ERRORS[dialect])))
        changed.append("error")
    return lines, tuple(changed)


# ---------------------------------------------------------------------------------------------------- harmless changes

_IDLE: dict[str, list[Line]] = {
    "chat": [
        ("", {"choices": []}),
        ("", {"choices": [], "usage": None}),
        ("", {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}),
        ("", {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}),
        ("", {"choices": [{"index": 0, "delta": {"content": None, "tool_calls": None}, "logprobs": None}]}),
        ("", {"choices": [{"index": 0, "delta": {"content": "", "tool_calls": []}}], "usage": None}),
    ],
    "messages": [("ping", {"type": "ping"}), ("", {"type": "ping"})],
    "responses": [("", {"type": "keepalive", "sequence_number": 9}), ("keepalive", {"type": "keepalive"})],
}


@st.composite
def harmless_changes(draw: st.DrawFn, name: str) -> list[Line]:
    """A stream of `streams/` that says the same in other pieces."""
    dialect = dialect_of(name)
    lines: list[Line] = []
    for line in load(name):
        if draw(st.integers(0, 3)) == 0:
            lines.append(draw(st.sampled_from(_IDLE[dialect])))
        pieces = [line]
        while len(pieces) < 4 and draw(st.booleans()):
            last = pieces.pop()
            split = _split(draw, dialect, last)
            pieces += split
            if len(split) == 1:
                break
        lines += pieces
    return lines


def _split(draw: st.DrawFn, dialect: str, line: Line) -> list[Line]:
    """Cut what an event adds to a text into two events, if it adds to one."""
    kind, value = line
    if not isinstance(value, dict):
        return [line]
    first, second = deepcopy(value), deepcopy(value)
    here = _growing(dialect, first)
    there = _growing(dialect, second)
    if here is None or there is None:
        return [line]
    parent, key = here
    if parent[key] in {"{}", "null"}:  # some servers write it where arguments are yet to come
        return [line]
    at = draw(st.integers(0, len(parent[key])))
    there[0][key] = parent[key][at:]
    parent[key] = parent[key][:at]
    if dialect == "chat":
        first["choices"][0]["finish_reason"] = None
        first.pop("usage", None)
        second["choices"][0]["logprobs"] = None
    return [(kind, first), (kind, second)]


def _growing(dialect: str, value: Json) -> tuple[Json, str] | None:
    """Find the one text that an event of a stream adds to."""
    if dialect == "responses":
        grows = str(value.get("type")).endswith((".delta",)) and isinstance(value.get("delta"), str)
        return (value, "delta") if grows else None
    if dialect == "messages":
        delta = value.get("delta")
        names = ("text", "thinking", "partial_json", "signature")
        found = [name for name in names if isinstance(delta, dict) and isinstance(delta.get(name), str)]
        return (value["delta"], found[0]) if found else None
    return _growing_in_chunk(value)


def _growing_in_chunk(chunk: Json) -> tuple[Json, str] | None:
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not choices[0] or "error" in chunk:
        return None
    delta = choices[0].get("delta") or {}
    said = [name for name, value in delta.items() if value not in (None, "", []) and name != "role"]
    if len(said) != 1:
        return None
    if said == ["tool_calls"] and len(delta["tool_calls"]) == 1:
        call = delta["tool_calls"][0]
        function = call.get("function") or {}
        goes_on = "index" in call and not call.get("id") and isinstance(function.get("arguments"), str)
        return (function, "arguments") if goes_on else None  # where each piece has an id, more pieces have more
    grows = said[0] in {"content", "refusal", "reasoning_content", "reasoning"} and isinstance(delta[said[0]], str)
    return (delta, said[0]) if grows else None
