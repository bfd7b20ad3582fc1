"""How a reply's stream ends: once, and with the warnings about it."""

from __future__ import annotations

import pytest

from segue.dialects.interface import Output
from segue.dialects.provider_errors import ProviderError
from segue.dialects.stream_end import MAX_WARNINGS, StreamEnd, count, counted
from segue.protocol.events import Ended
from segue.protocol.responses import Failure, usage

USAGE = usage(9, 4)
SLOW = Failure("upstream_timeout", "Too slow.")


def warned(*warnings: str) -> tuple[str, ...]:
    end = StreamEnd(("before",))
    for warning in warnings:
        end.warn(warning)
    (ended,) = end.completed(None)
    assert isinstance(ended, Ended)
    return ended.warnings


@pytest.mark.parametrize(
    ("output", "ended"),
    [
        (StreamEnd(()).completed(USAGE), Ended("completed", USAGE)),
        (StreamEnd(()).completed(None), Ended("completed", usage(0, 0))),
        (StreamEnd(()).incomplete("content_filter", USAGE), Ended("incomplete", USAGE, None, "content_filter")),
        (StreamEnd(()).incomplete("content_filter", None), Ended("incomplete", None, None, "content_filter")),
        (StreamEnd(()).finished(None, USAGE), Ended("completed", USAGE)),
        (StreamEnd(()).finished("content_filter", USAGE), Ended("incomplete", USAGE, None, "content_filter")),
        (StreamEnd(()).failed(SLOW), Ended("failed", None, SLOW)),
        (StreamEnd(()).failed(SLOW, USAGE), Ended("failed", USAGE, SLOW)),
        (StreamEnd(()).failed(SLOW, retry_after_s=3.0), Ended("failed", None, SLOW, retry_after_s=3.0)),
        (
            StreamEnd(()).failed_with(ProviderError("Slow.", status=429, retry_after_s=3.0), USAGE),
            Ended("failed", USAGE, Failure("rate_limit_exceeded", "Slow."), retry_after_s=3.0),
        ),
        (
            StreamEnd(()).stopped_with_an_error(),
            Ended("failed", None, Failure("upstream_error", "The upstream stopped with an error.")),
        ),
        (
            StreamEnd(()).empty(),
            Ended("failed", None, Failure("upstream_protocol_error", "The upstream's stream ended without an answer.")),
        ),
        (
            StreamEnd(()).broken("it is odd"),
            Ended(
                "failed", None, Failure("upstream_protocol_error", "The upstream's answer cannot be read: it is odd.")
            ),
        ),
        (
            StreamEnd(()).stopped(truncated=False),
            Ended("failed", None, Failure("upstream_protocol_error", "The upstream's stream stopped before its end.")),
        ),
        (
            StreamEnd(()).stopped(truncated=True),
            Ended(
                "failed",
                None,
                Failure("upstream_error", "The connection to the upstream broke before its answer was complete."),
            ),
        ),
    ],
)
def test_an_end(output: Output, ended: Ended) -> None:
    assert output == [ended]


def test_a_failure_says_when_to_try_again() -> None:
    assert StreamEnd(()).failed_with(ProviderError("Slow.", ("rate_limit_error",), retry_after_s=3.0)) == [
        Ended("failed", None, Failure("rate_limit_exceeded", "Slow."), retry_after_s=3.0)
    ]


def test_only_the_first_end_is_one() -> None:
    end = StreamEnd(())
    before = end.ended
    assert len(end.failed(SLOW)) == 1
    assert (before, end.ended) == (False, True)
    assert end.completed(USAGE) == end.incomplete("x", None) == end.broken("x") == end.stopped(truncated=True) == []


def test_warnings_of_the_request_come_first_and_each_is_there_once() -> None:
    assert warned("one", "two", "one", "before") == ("before", "one", "two")


def test_a_kind_of_thing_is_named_in_its_warning() -> None:
    end = StreamEnd(())
    end.warn_of("audio")
    (ended,) = end.completed(None)
    assert isinstance(ended, Ended)
    assert ended.warnings == ("'audio' in the upstream's answer was left out: it has no counterpart.",)


def test_a_peer_cannot_cause_more_than_some_warnings() -> None:
    told = warned(*(str(number) for number in range(100)))
    most = [str(number) for number in range(MAX_WARNINGS - 1)]
    assert told == ("before", *most, "More was left out of the upstream's answer than is named here.")


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"a": 3, "b": 4}, 3),
        ({"b": 4}, 4),
        ({"a": 0, "b": 4}, 4),
        ({"a": -1, "b": 4}, 4),
        ({"a": None, "b": 4}, 4),
        ({"a": "3", "b": 4}, 4),
        ({"a": 1 << 53, "b": 4}, 4),
        ({"a": (1 << 53) - 1}, (1 << 53) - 1),
        ({"a": 1}, 1),
        ({"a": 2.75}, 2),
        ({"a": float("nan")}, 0),
        ({}, 0),
        (None, 0),
        ([3], 0),
    ],
)
def test_the_first_count_that_is_one_is_taken(counts: object, found: int) -> None:
    assert count(counts, "a", "b") == found


def test_a_part_is_no_larger_than_what_it_is_part_of() -> None:
    assert counted(9, 4, cached=5, reasoning=3, written=2) == usage(9, 4, cached=5, reasoning=3, written=2)
    assert counted(9, 4, cached=10, reasoning=5, written=10) == usage(9, 4, cached=9, reasoning=4, written=9)
    assert counted(9, 4) == usage(9, 4)


def test_what_cannot_be_read_is_named() -> None:
    end = StreamEnd(())
    end.warn_of_unreadable("usage")
    (ended,) = end.completed(None)
    assert isinstance(ended, Ended)
    assert ended.warnings == ("'usage' in the upstream's answer was left out: it cannot be read.",)
