"""What the error of an upstream means for its turn."""

from __future__ import annotations

import asyncio

import pytest

from segue.gateway.turns.turn_ends import end_of, not_stored
from segue.history.chains import History
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings
from segue.stores.interface import ConversationMoved, ParentGone, StoreError
from segue.testing.store_samples import sample_id
from segue.upstreams.interface import UpstreamRequest

REQUEST = UpstreamRequest("m", sample_id("one"), "alice", History(None, ()), Settings(model="m"))


def code(error: BaseException, *, begun: bool = True) -> str | None:
    ended = end_of(error, REQUEST, begun=begun)
    return None if ended is None or ended.error is None else ended.error.code


def test_a_turn_that_has_begun_fails() -> None:
    assert code(StopAsyncIteration()) == "upstream_protocol_error"
    assert code(Refused(Problem("rate_limit_exceeded", "no"))) == "rate_limit_exceeded"
    assert code(ValueError("secret")) == "server_error"


def test_a_turn_that_has_not_begun_is_refused() -> None:
    assert end_of(Refused(Problem("rate_limit_exceeded", "no")), REQUEST, begun=False) is None
    with pytest.raises(Refused) as caught:
        end_of(ValueError("secret"), REQUEST, begun=False)
    assert "secret" not in caught.value.problem.message


async def test_its_own_cancellation_is_passed_on_and_another_one_is_a_failure() -> None:
    assert code(asyncio.CancelledError()) == "server_error"

    async def cancelled() -> object:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            return end_of(error, REQUEST, begun=True)
        return "not cancelled"

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    assert await task is None


@pytest.mark.parametrize(
    ("error", "expected"), [(ParentGone(), "store_error"), (ConversationMoved(), "conversation_locked")]
)
def test_a_turn_that_was_not_stored_says_why(error: StoreError, expected: str) -> None:
    ended = not_stored(None, error)
    assert ended.error is not None
    assert (ended.status, ended.error.code) == ("failed", expected)
