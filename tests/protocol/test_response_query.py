"""Queries of stored responses: what labels are, and where a page begins and ends."""

from __future__ import annotations

from math import inf

import msgspec
import pytest

from segue.protocol.response_query import Label, ResponseQuery, metadata_label, model_label


def test_labels_have_the_names_of_query_parameters() -> None:
    assert model_label("gpt") == Label("model", "gpt")
    assert metadata_label("a", "b") == Label("metadata[a]", "b")


def test_a_digest_stands_for_one_label() -> None:
    """Wherever the name ends and the value begins."""
    labels = [Label("ab", "c"), Label("a", "bc"), Label("abc", ""), Label("", "abc"), Label('a","b', "c")]
    assert len({label.digest for label in labels}) == len(labels)
    assert {len(label.digest) for label in labels} == {16}
    assert Label("ab", "c").digest == Label("ab", "c").digest


@pytest.mark.parametrize(
    ("order", "after", "expected"),
    [
        ("desc", None, ((10.0, -1), (20.0, -1))),
        ("asc", None, ((10.0, -1), (20.0, -1))),
        ("desc", (15.0, 3), ((10.0, -1), (15.0, 3))),
        ("asc", (15.0, 3), ((15.0, 3), (20.0, -1))),
        ("asc", (5.0, 3), ((10.0, -1), (20.0, -1))),
        ("desc", (25.0, 3), ((10.0, -1), (20.0, -1))),
    ],
)
def test_a_page_is_between_two_positions(order: str, after: tuple[float, int] | None, expected: object) -> None:
    query = msgspec.convert({"order": order, "created_from": 10, "created_before": 20}, ResponseQuery)
    assert query.bounds(after) == expected


def test_a_query_without_times_has_no_bounds() -> None:
    assert ResponseQuery().bounds(None) == ((-inf, -1), (inf, -1))
