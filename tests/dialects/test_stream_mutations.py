"""What a client can rely on, whatever a provider's stream has become: what is shown as complete is all that came.

`--hypothesis-show-statistics` tells how many streams were tried and how they ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from segue.dialects.growing_text import mended
from segue.dialects.interface import Output
from segue.protocol.events import Ended, Event
from segue.protocol.responses import encode_echo
from segue.protocol.turns import TurnStream
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import RESPONSE_ID, SETTINGS, fold, response
from tests.dialects.golden import CHECKED, decoder, dialect_of
from tests.dialects.stream_mutations import ERRORS, Line, harmless_changes, load, odd_streams, places, write
from tests.strategies import examples

Json = dict[str, Any]


#: The characters that streams of `streams/` cut in two.
_CUT = "\U0001f600\U0001f680\U0001f914"


class Reading:
    """One stream as its decoder read it."""

    def __init__(self, dialect: str, lines: list[Line], *, truncated: bool = False) -> None:
        reader = decoder(dialect)
        self.dialect = dialect
        self.read: list[Line] = []
        self.output: Output = []
        for line, one in zip(lines, write(lines), strict=True):
            if reader.ended:
                assert reader.feed(one) == []
                continue
            self.read.append(line)
            self.output += reader.feed(one)
        self.at_end = reader.end(truncated=truncated)
        self.output += self.at_end
        assert reader.end() == []

    @property
    def ended(self) -> Ended:
        last = self.output[-1]
        assert isinstance(last, Ended)
        return last


def holds(reading: Reading) -> Json | None:
    """Hold an answer to what is true of all answers; return it if it claims to be all that was said."""
    assert [isinstance(one, Ended) for one in reading.output] == [False] * (len(reading.output) - 1) + [True]
    ended = reading.ended
    event(f"{reading.dialect}: {ended.status}")
    if reading.dialect == "responses":
        items = [one.item for one in reading.output if not isinstance(one, Ended) and one.type.endswith("item.done")]
        for one in reading.output:
            assert isinstance(one, Ended) or b"\n" not in one.data
        answer = msgspec.json.decode(_closed(reading.output))
        assert answer["output"] == [msgspec.json.decode(item) for item in items]
    else:
        answer = parse_json(fold(reading.output).response.whole().decode())
    if any(line in ERRORS[reading.dialect] for line in reading.read):
        assert answer["status"] == "failed", "an error came"
    return answer if answer["status"] in {"completed", "incomplete"} else None


def _closed(output: Output) -> bytes:
    stream = TurnStream(RESPONSE_ID, None, encode_echo(SETTINGS, store=False), 100.0, encrypted=True)
    stream.open()
    stream.feed(output)
    assert stream.ended is not None
    return stream.close(stream.ended, 101.0).response.whole()


# -------------------------------------------------------------------------------------------------- what came, and when


def choices(line: Line) -> Iterator[Json]:
    """The choices of a chunk, as far as they are any."""
    value = line[1]
    found = value.get("choices") if isinstance(value, dict) else None
    yield from (choice for choice in found or () if isinstance(choice, dict)) if isinstance(found, list) else ()


def pieces(line: Line, dialect: str) -> Iterator[tuple[str, str]]:
    """What an event of a translated API adds to texts and to arguments."""
    if dialect == "chat":
        for choice in choices(line):
            yield from _pieces_of_delta(_object(choice.get("delta")))
        return
    for name in ("delta", "content_block"):
        part = _object(_object(line[1]).get(name))
        yield "text", _text(part.get("text"))
        yield "reasoning", _text(part.get("thinking"))
        yield "arguments", _text(part.get("partial_json"))
        yield "input", json.dumps(part["input"]) if part.get("input") else ""


def _pieces_of_delta(delta: Json) -> Iterator[tuple[str, str]]:
    content = delta.get("content")
    for part in content if isinstance(content, list) else [{"text": content}]:
        yield "text", _text(part.get("text") if isinstance(part, dict) else None)
    yield "text", _text(delta.get("refusal"))
    thought = {_text(delta.get(name)) for name in ("reasoning", "reasoning_content")}  # some servers say it in both
    yield "reasoning", max(thought, key=len)
    calls = delta.get("tool_calls")
    for call in [*(calls if isinstance(calls, list) else ()), {"function": delta.get("function_call")}]:
        function = call.get("function") if isinstance(call, dict) else None
        yield "arguments", _text(function.get("arguments") if isinstance(function, dict) else None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def came(reading: Reading, what: str) -> str:
    """All of it that came. A whole call that is said again is one call."""
    found: list[str] = []
    for line in reading.read:
        for kind, text in pieces(line, reading.dialect):
            again = text.startswith("{") and text in "".join(found)
            if kind == what and not (kind == "arguments" and (again or text == "null")):  # null stands for nothing
                found.append(text)
    return mended("".join(found))


def said(answer: Json, what: str) -> str:
    """The texts of an answer, or the arguments of its calls, one behind the other."""
    if what == "reasoning":
        parts = [part for item in answer["output"] if item["type"] == "reasoning" for part in item["summary"]]
        return "".join(part["text"] for part in parts)
    if what == "text":
        parts = [part for item in answer["output"] for part in item.get("content", ()) if item["type"] == "message"]
        return "".join(part.get("text") or part.get("refusal", "") for part in parts)
    return "".join(item["arguments"] for item in answer["output"] if item["type"] == "function_call")


def letters(text: str) -> Counter[str]:
    """What a text consists of, but for what an empty object does: that is written where no arguments came."""
    return Counter(letter for letter in text if letter not in "{}\ufffd")


#: Changes after which what an item says at its end may be less than what was said of it before.
VALUES = {"spoil", "drop_field", "retype", "interrupt"}


DELTAS = {
    *("response.output_text.delta", "response.refusal.delta"),
    *("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"),
}


def is_all_there(reading: Reading, answer: Json) -> bool:
    """Whether what a client has seen growing is in the answer that it gets at the end."""
    frames = [one.data for one in reading.output if isinstance(one, Event) and one.type in DELTAS]
    deltas = [_text(msgspec.json.decode(frame)["delta"]).strip("\ufffd") for frame in frames]
    names = ("text", "refusal", "arguments", "input")
    said = [_text(parent[key]) for parent, key in places(answer["output"]) if key in names]
    return all(any(delta in text for text in said) for delta in deltas)


def cut(answer: Json) -> Counter[str]:
    """The characters that may stand nowhere, since something came between their halves: each left two marks."""
    marks = json.dumps(answer["output"], ensure_ascii=False).count("\ufffd")
    return Counter(dict.fromkeys(_CUT, marks))


def has_end(line: Line, dialect: str) -> bool:
    """Whether an event says that the answer is over. Some servers only count at the end."""
    kind, value = line
    if not isinstance(value, dict):
        return str(value) == "[DONE]"
    kind, delta = _text(value.get("type")) or kind, value.get("delta")
    has_reason = any(one.get("finish_reason") or one.get("stop_reason") for one in (*choices(line), _object(delta)))
    if dialect == "responses":
        return kind in {"response.completed", "response.incomplete", "response.done"}
    return has_reason or kind == "message_stop" or bool(value.get("usage"))


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


# --------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.timeout(600)
@given(name=st.sampled_from(CHECKED), data=st.data())
@settings(max_examples=examples(5000))
def test_a_stream_in_other_pieces_says_the_same(name: str, data: st.DataObject) -> None:
    lines = data.draw(harmless_changes(name))
    event(dialect_of(name))
    before, after = Reading(dialect_of(name), load(name)), Reading(dialect_of(name), lines)
    assert response(after.output) == response(before.output)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("dialect", sorted(ERRORS))
@given(data=st.data(), truncated=st.booleans())
@settings(max_examples=examples(3000))
def test_an_answer_that_says_it_is_complete_is(dialect: str, data: st.DataObject, truncated: bool) -> None:
    lines, changed = data.draw(odd_streams(dialect))
    reading = Reading(dialect, lines, truncated=truncated)
    for change in changed:
        event(f"{dialect}: {change}")
    answer = holds(reading)
    if answer is None:
        return
    assert any(has_end(line, dialect) for line in reading.read), "nothing said that it was over"
    if dialect == "responses":
        assert not VALUES.isdisjoint(changed) or is_all_there(reading, answer), "what was shown is not in the answer"
        return
    if answer.get("warnings"):
        return
    for what in ("text", "reasoning"):
        lost = letters(came(reading, what)) - letters(said(answer, what)) - cut(answer)
        assert not lost, f"some {what} was lost"
    is_plain = all(item["type"] != "custom_tool_call" for item in answer["output"])  # its input is in the arguments
    if is_plain and not came(reading, "input"):  # what came at once may be a placeholder
        lost = letters(came(reading, "arguments")) - letters(said(answer, "arguments")) - cut(answer)
        assert not lost, "some arguments were lost"
