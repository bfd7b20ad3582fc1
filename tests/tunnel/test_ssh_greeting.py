"""What the far side of an ssh connection says before the tunnel's bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.tunnel.ssh_greeting import (
    MAX_GREETING_BYTES,
    GreetingReader,
    RelayFailed,
    RelayReady,
    encode_failed,
    encode_ready,
)
from tests.strategies import examples

READY = RelayReady(1, "0.1.0")


def read(text: bytes) -> tuple[RelayReady | RelayFailed | None, str]:
    reader = GreetingReader()
    return reader.receive(text), reader.progress


@pytest.mark.parametrize(
    ("before", "progress"),
    [
        (b"", "nothing"),
        (b"segue-ssh FOUND\n", "FOUND"),
        (b"Welcome to fish!\r\nsegue-ssh FOUND\r\nno line end", "FOUND"),
        (b"\xff\x00" * 999 + b"\nsegue-ssh INSTALLING\n", "INSTALLING"),
        (b"segue-sshX READY 9 9\n segue-ssh FAILED\n", "nothing"),
    ],
)
def test_the_relay_is_ready_whatever_was_printed_before(before: bytes, progress: str) -> None:
    assert read(before + encode_ready("0.1.0")) == (READY, progress)


@settings(max_examples=examples(300))
@given(st.binary(max_size=200), st.lists(st.integers(1, 300), max_size=8))
def test_pieces_of_any_size_say_the_same(noise: bytes, cuts: list[int]) -> None:
    text = noise.replace(b"segue", b"") + b"\nsegue-ssh FOUND\n" + encode_ready("0.1.0")
    whole, reader = GreetingReader().receive(text), GreetingReader()
    answers, at = [], 0
    for end in [*sorted(cuts), len(text)]:
        answers.append(reader.receive(text[at:end]) if end > at else None)
        at = max(at, end)
    assert whole == READY
    assert [answer for answer in answers if answer is not None] == [READY]


def test_a_failure_is_one_printable_line() -> None:
    said = encode_failed("no\nsocket \x1b[31m" + "x" * 5000)
    assert said.count(b"\n") == 2
    ended, _ = read(said)
    assert isinstance(ended, RelayFailed)
    assert ended.reason.startswith("no socket  [31mxxx")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"x" * (MAX_GREETING_BYTES + 1), "printed too much"),
        (encode_ready("1") + b"hello", "before it was asked"),
        (encode_ready("1") + b"\n", "before it was asked"),
        (b"segue-ssh READY one\n", "does not know: READY one"),
        (b"segue-ssh READY 1 $(x)\n", "does not know"),
        (b"segue-ssh\n", "does not know"),
        (b"segue-ssh FOUND twice\n", "does not know"),
    ],
)
def test_what_does_not_fit_is_a_failure(text: bytes, reason: str) -> None:
    ended, _ = read(text)
    assert isinstance(ended, RelayFailed)
    assert reason in ended.reason


def test_a_line_without_an_end_takes_no_memory() -> None:
    reader = GreetingReader()
    for _ in range(16):
        assert reader.receive(b"x" * 4000) is None
    assert len(reader._unread) <= 2048  # noqa: SLF001 - what it holds is what is tested
    assert reader.receive(b"\n" + encode_ready("0.1.0")[:10]) is None
