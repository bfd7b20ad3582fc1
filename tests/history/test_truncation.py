"""Truncation: what stays of a history that is too long, and what stays together."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.history.truncation import shorten
from segue.protocol.items import Item, key_of
from tests.strategies import examples  # noqa: F401 - the profile


def message(role: str, text: str = "x" * 100) -> Item:
    return msgspec.json.encode({"type": "message", "role": role, "content": text})


def called(number: int) -> Item:
    return b'{"type":"function_call","call_id":"c%d","name":"f","arguments":"{}"}' % number


def output(number: int) -> Item:
    return b'{"type":"function_call_output","call_id":"c%d","output":"done"}' % number


def reasoned(number: int) -> Item:
    return b'{"type":"reasoning","id":"r%d","summary":[]}' % number


SYSTEM, TASK, ANSWER = message("system"), message("user", "the task"), message("assistant")
TOOLS = b'{"type":"additional_tools","role":"developer","tools":[]}'


def test_all_may_stay_and_no_more_goes_than_has_to() -> None:
    items = [message("user", str(n)) for n in range(10)]
    assert shorten(items, 1).items == tuple(items)
    assert shorten(items, 0.5).items == tuple(items[5:])
    assert shorten(items, 0) == (tuple(items[-1:]), 9)
    assert shorten([], 0) == ((), 0)


def test_the_task_stays_and_the_steps_go_oldest_first() -> None:
    """A call never goes without its output, nor reasoning without what it has led to."""
    steps = [item for n in range(4) for item in (reasoned(n), called(n), output(n))]
    assert shorten([SYSTEM, TASK, *steps], 0.5).items == (SYSTEM, TASK, *steps[6:])
    assert shorten([SYSTEM, TASK, *steps], 0).items == (SYSTEM, TASK, *steps[9:])


def test_calls_that_are_made_at_once_stay_together() -> None:
    at_once = [called(1), called(2), output(2), output(1)]
    for share in (0.0, 0.3, 0.6, 0.9, 1.0):
        left = shorten([TASK, *at_once, called(3), output(3)], share).items
        assert left in ((TASK, *at_once, called(3), output(3)), (TASK, called(3), output(3)))


def test_a_call_that_nobody_answered_holds_nothing() -> None:
    assert shorten([message("user"), called(1), ANSWER, TASK], 0).items == (TASK,)


def test_what_changes_settings_stays() -> None:
    assert shorten([TOOLS, message("user"), message("developer"), ANSWER, TASK], 0).items == (
        TOOLS,
        message("developer"),
        TASK,
    )


def test_what_is_new_stays() -> None:
    items = [message("user", "old"), ANSWER, called(1), output(1), ANSWER]
    assert shorten(items, 0, new=2).items == (message("user", "old"), called(1), output(1), ANSWER)


def test_what_is_left_begins_with_the_user() -> None:
    items = [message("user", "1" * 90), message("assistant", "2" * 90), message("user", "3"), ANSWER, TASK]
    assert shorten(items, 0.7).items == tuple(items[2:])


_ITEMS = st.lists(
    st.sampled_from([SYSTEM, TASK, ANSWER, TOOLS, *(make(n) for n in range(3) for make in (called, output, reasoned))])
)


@given(items=_ITEMS, share=st.floats(0, 1), new=st.integers(0, 3))
def test_no_output_is_left_without_its_call(items: list[Item], share: float, new: int) -> None:
    """Unless it had none before; and what stays is in its order."""
    new = min(new, len(items))
    shortened = shorten(items, share, new=new)
    assert len(items) - len(shortened.items) == shortened.left_out
    rest = iter(items)
    assert all(item in rest for item in shortened.items)
    assert shortened.items[len(shortened.items) - new :] == tuple(items[len(items) - new :])
    assert unanswerable(shortened.items) <= unanswerable(items)


def unanswerable(items: list[Item] | tuple[Item, ...]) -> set[str]:
    """Calls whose output comes with no call before it."""
    made: set[str] = set()
    found: set[str] = set()
    for key in map(key_of, items):
        if key.call_id is not None and key.is_output and key.call_id not in made:
            found.add(key.call_id)
        elif key.call_id is not None:
            made.add(key.call_id)
    return found


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_last_item_stays(share: float) -> None:
    assert shorten([TASK, ANSWER], share).items == (TASK, ANSWER)
