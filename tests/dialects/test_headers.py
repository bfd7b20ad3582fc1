"""The header lines of a request to a provider."""

from __future__ import annotations

from segue.dialects.headers import JSON_IN_EVENTS_OUT, bearer_headers


def test_a_key_is_a_bearer_token_and_without_one_there_is_no_line_for_it() -> None:
    assert bearer_headers("k") == (*JSON_IN_EVENTS_OUT, ("Authorization", "Bearer k"))
    assert bearer_headers(None) == (("Content-Type", "application/json"), ("Accept", "text/event-stream"))
