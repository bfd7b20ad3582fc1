"""Dictionaries of RFC 9651: what is read, and what is worth nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.structured_fields import MAX_CHARS, Member, read_dictionary
from tests.strategies import examples


@pytest.mark.parametrize(
    ("header", "members"),
    [
        ("", {}),
        ("  a=1  ", {"a": 1}),
        ("a=1,b=-2 ,\tc=1.500", {"a": 1, "b": -2, "c": 1.5}),
        ('a="x \\"y\\" \\\\", b=Token/1:*', {"a": 'x "y" \\', "b": "Token/1:*"}),
        ("a, b=?0, c=?1, d;p, e=?1;p=2;q", {"a": True, "b": False, "c": True, "d": True, "e": True}),
        ('a=(x y  "z" 1);p="q;r", b=()', {"a": ("x", "y", "z", 1), "b": ()}),
        ("a=( x;q=1 )", {"a": ("x",)}),
        ("a=:aGk=:, b=:aGk:, c=@1659578233, d=@-1", {"a": b"hi", "b": b"hi", "c": 1659578233, "d": -1}),
        ('a=%"f%c3%bc"', {"a": "fü"}),
        ("a=1, b=2, a=3", {"b": 2, "a": 3}),
        ("*a.b-c_1=1", {"*a.b-c_1": 1}),
        ("a=999999999999999", {"a": 999999999999999}),
    ],
)
def test_a_dictionary_is_read(header: str, members: dict[str, Member]) -> None:
    read = read_dictionary(header)
    assert read is not None
    assert list(read.items()) == list(members.items())


@pytest.mark.parametrize(
    "header",
    [
        "a=1,", "a=1,,b", ",a", "A=1", "1a", "a b", "a=", 'a="x', 'a="\\x"', "a=(x", "a=(x y", 'a=("x""y")', "a=(1,2)",
        "a=?2", "a=:*:", "a=:a:", "a=@x", "a=@1.5", 'a=%"%ff"', 'a=%"%C3%BC"', "a=1.", "a=1.2345", "a=-",
        "a=1234567890123456", "a=1234567890123.1", "a=1;", "a=1;A", "a=1;p=", "a=ü", "a=\x00", "a=1\nb=2", "a=[1]",
        "\ta=1",
    ],
)  # fmt: skip
def test_a_broken_dictionary_is_worth_nothing(header: str) -> None:
    assert read_dictionary(header) is None


def test_a_header_that_is_too_long_is_not_looked_at() -> None:
    longest = "a=" + "b" * (MAX_CHARS - 2)
    assert read_dictionary(longest) == {"a": "b" * (MAX_CHARS - 2)}
    assert read_dictionary(longest + "b") is None


@given(st.text(st.sampled_from('ab=(),;" ?01:@%.-\\\t'), max_size=60) | st.text(max_size=60))
@settings(max_examples=examples(1000))
def test_no_header_is_stumbled_over(header: str) -> None:
    read_dictionary(header)


_keys = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
_words = st.from_regex(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,8}", fullmatch=True)


@given(st.dictionaries(_keys, st.integers(-(10**15) + 1, 10**15 - 1) | st.booleans() | st.lists(_words).map(tuple)))
def test_what_is_written_is_read_again(members: dict[str, Member]) -> None:
    def written(value: Member) -> str:
        if isinstance(value, tuple):
            return f"({' '.join(map(str, value))})"
        return f"?{int(value)}" if isinstance(value, bool) else str(value)

    header = ", ".join(f"{key}={written(value)}" for key, value in members.items())
    assert read_dictionary(header) == members
