"""A history shares what came before, and an input is read as what it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.client.local_history import EMPTY_HISTORY, InputItems, LocalHistory, history_of, read_items
from segue.protocol.items import user_message


def test_histories_share_what_came_before() -> None:
    root = EMPTY_HISTORY.append([b"a", b"bb"])
    left, right = root.append([b"c"]), root.append([])
    assert (root.items, left.items, right.items) == ((b"a", b"bb"), (b"a", b"bb", b"c"), (b"a", b"bb"))
    assert left.parent is right.parent is root
    assert (left.count, left.size_bytes) == (3, 4)
    assert history_of(()) is EMPTY_HISTORY
    assert history_of([b"a"]).items == (b"a",)


def test_a_very_long_history_can_be_read_and_dropped() -> None:
    history: LocalHistory = EMPTY_HISTORY
    for _ in range(100_000):
        history = history.append([b"x"])
    assert len(history.items) == history.count == 100_000
    del history


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("hi", (user_message("hi"),)),
        ({"type": "x"}, (b'{"type":"x"}',)),
        ([{"type": "x"}, b' {"type": "y"}\n'], (b'{"type":"x"}', b'{"type": "y"}')),
        (b'[{"type": "x"}, {}]', (b'{"type": "x"}', b"{}")),
        (b' {"type": "x"} ', (b'{"type": "x"}',)),
        ([], ()),
    ],
)
def test_an_input_is_a_text_an_item_a_list_or_their_json(given: InputItems, items: tuple[bytes, ...]) -> None:
    assert read_items(given) == items


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "ü\ud800"])
def test_a_text_that_is_no_unicode_is_repaired(text: str) -> None:
    """A tool may put out any bytes; a turn is not lost for them."""
    for given in (text, {"text": text}, [{"text": text, "more": [1]}]):
        (item,) = read_items(given)
        shown = str(msgspec.json.decode(item))
        assert "\ud800" not in shown
        assert ("ü" in shown) is ("ü" in text)


@pytest.mark.parametrize("given", [b"", b"[1]", b"[{}", b'"text"', [b"nope"], b"[{}] x"])
def test_other_bytes_are_a_mistake(given: InputItems) -> None:
    with pytest.raises(ValueError, match="is bytes that are no JSON"):
        read_items(given)


@pytest.mark.parametrize("given", [["hello"], [{"type": "message"}, 5], ["a", b"{}"]])
def test_an_item_of_another_type_is_a_mistake(given: Any) -> None:  # noqa: ANN401 - what a program may pass
    with pytest.raises(ValueError, match="not an object"):
        read_items(given)
