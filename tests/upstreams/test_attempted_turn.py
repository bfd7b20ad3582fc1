"""What a turn holds between its attempts."""

from __future__ import annotations

from segue.dialects.interface import Rendered
from segue.upstreams.attempted_turn import AttemptedTurn
from tests.upstreams.http_turns import request


def test_a_turn_that_is_answered_gives_up_its_body_and_keeps_what_is_said_of_it() -> None:
    turn = AttemptedTurn(request(), frozenset({"include"}), None)
    turn.rendered = Rendered((b"{", b"}"), ("Left out.",))
    turn.answered()
    assert turn.rendered == Rendered((), ("Left out.",))
    assert (turn.attempt, turn.forgotten, turn.without) == (1, False, frozenset({"include"}))
