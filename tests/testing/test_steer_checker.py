"""The checker of steers takes what the protocol says, and names each breach."""

from __future__ import annotations

from typing import Any

import pytest

from segue.testing.protocol_checker import ProtocolViolation
from segue.testing.steer_checker import SteerChecker

TARGET, NEXT = "resp_1", "resp_2"


def response(ident: str, previous: str | None = None, reason: str | None = None) -> dict[str, Any]:
    details = None if reason is None else {"reason": reason}
    return {"id": ident, "previous_response_id": previous, "incomplete_details": details}


def event(kind: str, number: int, ident: str | None = "steer_1", **fields: object) -> dict[str, Any]:
    steer = {"previous_response_id": TARGET} | ({} if ident is None else {"id": ident})
    return {"type": f"response.steer.{kind}", "sequence_number": number, "steer": steer, **fields}


def begun(*frames: dict[str, Any]) -> SteerChecker:
    checker = SteerChecker()
    checker.created(response(TARGET))
    for frame in frames:
        checker.feed(frame)
    return checker


def test_a_steer_is_committed_by_the_successor() -> None:
    checker = begun(event("accepted", 3))
    checker.ended(response(TARGET, reason="steered"), 9)
    checker.created(response(NEXT, TARGET))
    checker.ended(response(NEXT), 4)
    checker.finish()
    assert len(checker.frames) == 1


def test_a_steer_may_wait_for_its_client() -> None:
    checker = begun(event("accepted", 3))
    checker.ended(response(TARGET), 9)
    checker.feed(event("pending", 10, required_input=[{}]))
    checker.finish()
    checker.feed(event("failed", 11))
    checker.finish()


def test_what_was_not_accepted_is_given_back_without_an_id() -> None:
    begun(event("failed", 0, None)).finish()


@pytest.mark.parametrize(
    ("frames", "path"),
    [
        ([event("accepted", 3), event("accepted", 4)], "steer.id"),
        ([event("pending", 3, required_input=[{}])], ""),
        ([event("failed", 3)], "steer.id"),
        ([event("accepted", 3), event("failed", 4), event("failed", 5)], "steer.id"),
    ],
)
def test_a_breach_is_named(frames: list[dict[str, Any]], path: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        begun(*frames)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        (event("accepted", 10, "steer_2"), "steer.previous_response_id"),
        (event("pending", 10, "steer_2", required_input=[{}]), "steer.id"),
        (event("pending", 10, required_input=[]), "required_input"),
        (event("pending", 9, required_input=[{}]), "sequence_number"),
        (event("failed", 9), "sequence_number"),
    ],
)
def test_a_breach_behind_the_end_is_named(frame: dict[str, Any], path: str) -> None:
    checker = begun(event("accepted", 3))
    checker.ended(response(TARGET), 9)
    with pytest.raises(ProtocolViolation) as caught:
        checker.feed(frame)
    assert caught.value.path == path


def test_a_steer_is_announced_once() -> None:
    checker = begun(event("accepted", 3))
    checker.ended(response(TARGET), 9)
    checker.feed(event("pending", 10, required_input=[{}]))
    with pytest.raises(ProtocolViolation):
        checker.feed(event("pending", 11, required_input=[{}]))


def test_nothing_is_steered_that_nobody_has_asked_for() -> None:
    checker = begun()
    with pytest.raises(ProtocolViolation):
        checker.ended(response(TARGET, reason="steered"), 9)


def test_a_steer_that_is_lost_is_named() -> None:
    checker = begun(event("accepted", 3))
    checker.ended(response(TARGET), 9)
    with pytest.raises(ProtocolViolation, match="steer_1"):
        checker.finish()
