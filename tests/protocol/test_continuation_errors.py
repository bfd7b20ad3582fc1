"""Which errors say that a response cannot be continued."""

from __future__ import annotations

import pytest

from segue.protocol.continuation_errors import says_parent_is_lost


@pytest.mark.parametrize(
    ("code", "param", "status", "lost"),
    [
        ("previous_response_not_found", None, 400, True),
        ("store_mismatch", "store", 400, True),
        (None, "previous_response_id", None, True),
        ("not_found", None, 404, True),
        (None, None, 404, True),
        ("model_not_found", None, 404, False),
        ("not_found", "model", 404, False),
        ("invalid_value", "input", 400, False),
        (None, None, None, False),
    ],
)
def test_which_errors_say_that_a_response_is_lost(
    code: str | None, param: str | None, status: int | None, *, lost: bool
) -> None:
    assert says_parent_is_lost(code, param, status) is lost
