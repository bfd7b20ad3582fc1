"""An id is sent where the server can know it, and the history where it cannot."""

from __future__ import annotations

import pytest

from segue.client.capabilities import PLAIN_SERVER, ServerCapabilities
from segue.client.continuation import Continuation, CreatePlan, plan_create
from segue.client.local_history import EMPTY_HISTORY, history_of
from segue.client.settings import HistoryMode

HISTORY = history_of([b"old"])
BY_ID = CreatePlan(items=(b"new",), previous_response_id="r")
WHOLE = CreatePlan(items=(b"old", b"new"))
GRACE = ServerCapabilities(epoch="e", grace_s=30.0)
STORED = Continuation(response_id="r", stored=True)
LOCAL = Continuation(response_id="r", stored=False, connection=3, epoch="e")


def plan(
    continuation: Continuation | None,
    *,
    mode: HistoryMode = "auto",
    connection: int = 3,
    capabilities: ServerCapabilities = PLAIN_SERVER,
) -> CreatePlan | None:
    return plan_create(continuation, HISTORY, (b"new",), mode=mode, connection=connection, capabilities=capabilities)


@pytest.mark.parametrize(("continuation", "connection"), [(STORED, 0), (STORED, 9), (LOCAL, 3)])
def test_a_response_that_the_server_can_know_is_named(continuation: Continuation, connection: int) -> None:
    assert plan(continuation, connection=connection) == BY_ID
    assert plan(continuation, connection=connection, mode="id") == BY_ID
    assert plan(continuation, connection=connection, mode="replay") == WHOLE


@pytest.mark.parametrize(("continuation", "connection"), [(None, 3), (LOCAL, 0), (LOCAL, 4)])
def test_otherwise_the_history_is_sent_unless_that_is_forbidden(
    continuation: Continuation | None, connection: int
) -> None:
    assert plan(continuation, connection=connection) == WHOLE
    assert plan(continuation, connection=connection, mode="id") is None


def test_a_grace_period_keeps_what_its_own_life_made() -> None:
    assert plan(LOCAL, connection=4, capabilities=GRACE) == BY_ID
    assert plan(LOCAL, connection=0, capabilities=GRACE) == WHOLE, "over HTTP nothing unstored can be continued"
    other = ServerCapabilities(epoch="f", grace_s=30.0)
    assert plan(LOCAL, connection=4, capabilities=other) == WHOLE


def test_a_first_turn_has_nothing_to_name() -> None:
    first = plan_create(None, EMPTY_HISTORY, (b"new",), mode="id", connection=1, capabilities=PLAIN_SERVER)
    assert first == CreatePlan(items=(b"new",))
