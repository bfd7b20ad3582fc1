"""Names and values of header fields."""

from __future__ import annotations

import re

import pytest

from segue.http.field_syntax import NAME_TO_SEND, VALUE, VALUE_TO_SEND


@pytest.mark.parametrize(
    ("value", "received", "sent"),
    [
        (b"", True, True),
        (b"a b\tc", True, True),
        (b"\x80\xff\x01", True, True),
        (b" a ", True, False),
        (b"\t", True, False),
        (b"a\r", False, False),
        (b"a\nb", False, False),
        (b"a\x0bb", False, False),
        (b"a\x00b", False, False),
    ],
)
def test_values(value: bytes, *, received: bool, sent: bool) -> None:
    assert bool(re.fullmatch(VALUE, value)) is received
    assert bool(VALUE_TO_SEND.fullmatch(value)) is sent


@pytest.mark.parametrize(("name", "sent"), [(b"x-A_1", True), (b"", False), (b"a b", False), (b"a:", False)])
def test_names(name: bytes, *, sent: bool) -> None:
    assert bool(NAME_TO_SEND.fullmatch(name)) is sent
