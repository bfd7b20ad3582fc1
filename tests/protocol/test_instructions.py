"""Instructions, which can be as large as a request: they are kept as they came."""

from __future__ import annotations

import json

import pytest

from segue.protocol.problems import Problem
from segue.protocol.requests import Create, parse_create
from segue.protocol.responses import encode_echo


@pytest.mark.parametrize("size", [0, 1, 70_000])
@pytest.mark.parametrize("text", ["x", "é", "\U0001f600", '"'])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_instructions_keep_their_bytes(text: str, size: int, *, ascii_only: bool) -> None:
    """However long they are; as a text they are what was said, and the echo says them as the client did."""
    written = json.dumps(text * size, ensure_ascii=ascii_only).encode()
    create = parse_create(b'{"model":"m","input":"hi","instructions":%b}' % written, "http")
    assert isinstance(create, Create)
    assert create.settings.instructions is not None
    assert bytes(create.settings.instructions) == written
    assert create.settings.instructions_text == text * size
    assert b'"instructions":%b,"tools"' % written in encode_echo(create.settings, store=True)


@pytest.mark.parametrize("size", [10, 70_000])
@pytest.mark.parametrize("between", [b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_instructions_that_are_no_unicode_are_refused(between: bytes, size: int) -> None:
    text = b"x" * size + between + b"x" * size
    problem = parse_create(b'{"model":"m","input":"hi","instructions":"%b"}' % text, "http")
    assert isinstance(problem, Problem)
    assert "not valid Unicode" in problem.message


def test_long_instructions_with_half_a_character_get_another_in_its_place() -> None:
    create = parse_create(b'{"model":"m","input":"hi","instructions":"%b\\ud83d"}' % (b"x" * 70_000), "http")
    assert isinstance(create, Create)
    assert create.settings.instructions_text == "x" * 70_000 + "\ufffd"
