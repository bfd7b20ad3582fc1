"""When turns go over HTTP although the configuration says WebSocket."""

from __future__ import annotations

from segue.upstreams.websocket_trust import AGAIN_S, MOST_FAILURES, WebSocketTrust


def test_a_server_without_websockets_is_asked_over_http_for_a_while() -> None:
    trust = WebSocketTrust()
    assert trust.why_http(0.0) is None
    trust.note_absence(10.0)
    assert trust.why_http(10.0 + AGAIN_S - 1) == "no_websocket"
    assert trust.why_http(10.0 + AGAIN_S) is None


def test_sockets_that_break_again_and_again_are_given_up_for_a_while() -> None:
    trust = WebSocketTrust()
    for _ in range(MOST_FAILURES - 1):
        trust.note_failure(1.0)
    assert trust.why_http(1.0) is None
    trust.note_failure(1.0)
    assert trust.why_http(1.0) == "unreliable"
    assert trust.why_http(1.0 + AGAIN_S) is None
    trust.note_failure(2.0 + AGAIN_S)
    assert trust.why_http(2.0 + AGAIN_S) is None, "the count began anew"


def test_a_finished_turn_is_forgiving() -> None:
    trust = WebSocketTrust()
    for _ in range(3):
        for _ in range(MOST_FAILURES - 1):
            trust.note_failure(1.0)
        trust.note_success()
    assert trust.why_http(1.0) is None
