"""When a server wants to be asked again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.retry_after import read_retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "\u0663"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 -0000"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:27:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999 07:27:00 GMT"}, None),
    ],
)
def test_what_providers_say_about_it(headers: dict[str, str], seconds: float | None) -> None:
    """Retry-After is a number of seconds or a date."""
    assert read_retry_after(headers, now=1445412480.0) == seconds


@given(st.text(max_size=40))
def test_no_header_is_stumbled_over(text: str) -> None:
    seconds = read_retry_after({"retry-after": text, "retry-after-ms": text}, now=0.0)
    assert seconds is None or seconds >= 0
