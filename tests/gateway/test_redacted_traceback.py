"""An exception in a log is where it came from, never what it says."""

from __future__ import annotations

import pytest

from segue.gateway.redacted_traceback import redacted_traceback


def stumble(text: str, cause: Exception | None) -> None:
    raise ValueError(text) from cause


def failing(text: str, cause: Exception | None = None) -> Exception:
    """Return an exception that was raised in `stumble`."""
    with pytest.raises(ValueError, match=text) as caught:
        stumble(text, cause)
    return caught.value


def test_type_and_place_are_told_and_the_text_is_not() -> None:
    """What an exception quotes may be what a client said."""
    told = redacted_traceback(failing("a sec" + "ret"))
    assert told.startswith("ValueError at\n")
    assert "test_redacted_traceback.py" in told
    assert "in stumble" in told
    assert "a secret" not in told


def test_causes_follow() -> None:
    """Outermost first, without their texts."""
    told = redacted_traceback(failing("outer", cause=KeyError("inner")))
    assert told.index("ValueError at") < told.index("caused by KeyError at")
    assert "inner" not in told


def test_a_circle_of_causes_ends() -> None:
    """Exceptions can be each other's cause."""
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert redacted_traceback(one) == "ValueError at\ncaused by KeyError at\n"
