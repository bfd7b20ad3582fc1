"""When the events of a lean stream leave, and what stops its turn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from segue.gateway.turns.lean_batches import lean_batches
from segue.protocol.events import Event
from segue.protocol.problems import Problem, Refused

NEVER = 1e6


def delta(text: str, number: int = 9) -> Event:
    kind = "response.output_text.delta"
    fields = {"type": kind, "item_id": "m", "output_index": 0, "content_index": 0, "delta": text}
    return Event(kind, json.dumps({**fields, "sequence_number": number}).encode(), number)


def other(number: int = 9) -> Event:
    kind = "response.output_item.done"
    return Event(kind, b'{"type":"response.output_item.done"}', number, b"{}")


def shown(batch: Sequence[Event]) -> list[str]:
    """The text of deltas, and `item` for each item."""
    return ["item" if event.item else json.loads(event.data)["delta"] for event in batch]


class Turn:
    """A turn that yields what a test puts into it; `None` ends it."""

    def __init__(self, *batches: Sequence[Event]) -> None:
        self.asked = 0
        self.closed = False
        self._batches: asyncio.Queue[Sequence[Event] | Exception | None] = asyncio.Queue()
        for batch in batches:
            self.put(batch)

    def put(self, batch: Sequence[Event] | Exception | None) -> None:
        self._batches.put_nowait(batch)

    async def events(self) -> AsyncGenerator[Sequence[Event], None]:
        try:
            while True:
                self.asked += 1
                batch = await self._batches.get()
                if batch is None:
                    return
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self.closed = True

    async def until_asked(self, count: int) -> None:
        """Let other tasks run until the turn was asked for so many batches."""
        async with asyncio.timeout(20):
            while self.asked < count:  # noqa: ASYNC110 - nothing is set when a generator is asked
                await asyncio.sleep(0)


async def collect(batches: AsyncGenerator[Sequence[Event], None]) -> list[list[str]]:
    return [shown(batch) async for batch in batches]


async def test_the_first_text_leaves_at_once_and_what_follows_is_held() -> None:
    turn = Turn([delta("a")])
    batches = lean_batches(turn.events(), hold_s=NEVER)
    assert shown(await anext(batches)) == ["a"]
    turn.put([delta("b")])
    turn.put([delta("c")])
    await turn.until_asked(4)
    turn.put(None)
    assert await collect(batches) == [["bc"]]
    assert turn.closed


async def test_text_leaves_when_it_was_held_long_enough() -> None:
    turn = Turn([delta("a")])
    batches = lean_batches(turn.events(), hold_s=0.01)
    assert shown(await anext(batches)) == ["a"]
    turn.put([delta("b")])
    assert shown(await anext(batches)) == ["b"]
    await batches.aclose()


async def test_a_few_characters_are_held_for_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless more of them come."""
    monkeypatch.setattr("segue.gateway.turns.lean_batches._LONG_AGO", -1.5 * NEVER)  # when text has left last
    turn = Turn([delta("few")])
    batches = lean_batches(turn.events(), hold_s=NEVER)
    first = asyncio.ensure_future(anext(batches))
    await turn.until_asked(2)
    assert not first.done()
    turn.put([delta(" and more of them, which is enough")])
    assert shown(await first) == ["few and more of them, which is enough"]
    await batches.aclose()


async def test_what_is_no_text_leaves_at_once_after_the_text_before_it() -> None:
    turn = Turn([delta("a")])
    batches = lean_batches(turn.events(), hold_s=NEVER)
    await anext(batches)
    turn.put([delta("b"), other(), delta("c")])
    assert shown(await anext(batches)) == ["b", "item"]
    turn.put([other()])
    assert shown(await anext(batches)) == ["c", "item"]
    await batches.aclose()


async def test_a_slow_reader_slows_the_turn() -> None:
    """One batch is read ahead, and no more."""
    turn = Turn([other()])
    batches = lean_batches(turn.events(), hold_s=NEVER)
    await anext(batches)
    for _ in range(5):
        turn.put([other()])
    await turn.until_asked(2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert turn.asked == 2
    turn.put(None)
    assert await collect(batches) == [["item"]] * 5


async def test_text_is_not_held_without_a_bound() -> None:
    turn = Turn([delta("a")])
    batches = lean_batches(turn.events(), hold_s=NEVER)
    await anext(batches)
    for _ in range(5):
        turn.put([delta("x" * 5000)])
    assert [len(text) for text in shown(await anext(batches))] == [20_000]
    await batches.aclose()


async def test_a_refusal_is_raised_to_the_reader() -> None:
    turn = Turn()
    turn.put(Refused(Problem("server_error", "no")))
    with pytest.raises(Refused, match="no"):
        await collect(lean_batches(turn.events()))


async def test_an_error_comes_after_what_was_said_before() -> None:
    turn = Turn([delta("a")], [delta("b")])
    turn.put(RuntimeError("broken"))
    batches = lean_batches(turn.events(), hold_s=NEVER)
    said = [shown(await anext(batches))]
    with pytest.raises(RuntimeError, match="broken"):  # noqa: PT012 - what came before the error counts
        while True:
            said.append(shown(await anext(batches)))
    assert "".join(text for batch in said for text in batch) == "ab"


async def test_closing_the_stream_stops_the_turn() -> None:
    turn = Turn([other()])
    batches = lean_batches(turn.events())
    await anext(batches)
    await batches.aclose()
    assert turn.closed


async def test_cancelling_the_reader_stops_the_turn() -> None:
    turn = Turn()
    reader = asyncio.create_task(collect(lean_batches(turn.events())))
    await turn.until_asked(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert turn.closed


async def test_an_error_that_comes_too_late_is_not_lost_as_a_warning() -> None:
    """The reader is gone; nobody can be told any more."""
    turn = Turn([other()])
    batches = lean_batches(turn.events())
    await anext(batches)
    turn.put(RuntimeError("too late"))
    await turn.until_asked(2)
    await asyncio.sleep(0)
    await batches.aclose()
    assert turn.closed
