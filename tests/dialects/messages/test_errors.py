"""Errors as the Messages API has them."""

from __future__ import annotations

import json

import pytest

from segue.dialects.messages.errors import KINDS, write_error
from segue.protocol.problems import Problem, thread_unsupported


@pytest.mark.parametrize("status", [400, 422, *KINDS])
def test_an_error_has_the_type_of_its_status(status: int) -> None:
    written = json.loads(write_error(Problem("invalid_value", "No."), status))
    assert written == {"type": "error", "error": {"type": KINDS.get(status, "invalid_request_error"), "message": "No."}}


def test_the_code_of_a_thread_stands_in_the_details() -> None:
    """Clients look for it there alone."""
    written = json.loads(write_error(thread_unsupported("why"), 400, "req_1"))
    assert written["error"]["details"] == {"error_code": "thread_unsupported_request"}
    assert written["request_id"] == "req_1"
