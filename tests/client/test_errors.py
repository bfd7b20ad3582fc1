"""An error says what was done and what is safe, and nothing that is long or unprintable."""

from __future__ import annotations

from segue.client.errors import ClientError, ConnectionFailedError, CreateRefusedError, OutcomeUnknownError, cut


def test_an_error_says_what_was_done_and_what_is_safe() -> None:
    error = ConnectionFailedError("No connection came about.", "Send it again.")
    assert str(error) == "No connection came about. Send it again."
    assert (error.done, error.safe, error.safe_to_repeat) == ("No connection came about.", "Send it again.", True)


def test_the_server_s_own_words_are_attributes() -> None:
    error = CreateRefusedError("a", "b", status=429, code="rate_limit_exceeded", retry_after_s=2.0)
    assert (error.status, error.code, error.param, error.retry_after_s) == (429, "rate_limit_exceeded", None, 2.0)
    unknown = OutcomeUnknownError("a", "b", response_id="resp_1")
    assert isinstance(unknown, ClientError)
    assert (unknown.response_id, unknown.safe_to_repeat) == ("resp_1", False)


def test_texts_of_a_server_are_cut() -> None:
    assert cut(None) == ""
    assert cut("a\x1b[2Jb\n") == "a [2Jb "
    assert len(cut("x" * 10_000)) == 301
