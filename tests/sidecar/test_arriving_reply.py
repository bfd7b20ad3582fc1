"""A reply as it arrives: who is told that it has changed."""

from __future__ import annotations

import pytest

from segue.sidecar.arriving_reply import ArrivingReply


@pytest.mark.parametrize("passed_on", [True, False])
async def test_a_task_is_woken_unless_what_came_was_passed_on(passed_on: bool) -> None:
    reply, seen = ArrivingReply(keep_bytes=10), list[int]()
    reply.tell_change()
    assert reply.changed.is_set()

    def pass_on() -> bool:
        seen.append(reply.log.end)
        return passed_on

    reply.pass_on = pass_on
    reply.changed.clear()
    reply.log.write(b"data")
    reply.tell_change()
    assert (seen, reply.changed.is_set()) == ([4], not passed_on)
