"""What a document costs is measured on bodies of the size that is asked for, each with a base that serves."""

from __future__ import annotations

import pytest

from segue.bench.documents import MB, BodySize, make_bodies, measure_documents
from segue.tunnel.documents import encode_document


@pytest.mark.untraced
def test_measures_both_directions_of_each_size_and_the_largest_document() -> None:
    figures = measure_documents((BodySize(1, 5000.0), BodySize(2, 5000.0)), rounds=2)
    assert [one.name for one in figures] == [
        "CPU to encode 1 MB",
        "CPU to decode 1 MB",
        "CPU to encode 2 MB",
        "CPU to decode 2 MB",
        "document of 3 KB of news, the largest",
    ]
    assert all(one.met for one in figures)


def test_the_base_is_a_good_one_and_the_news_are_new() -> None:
    base, body = make_bodies(MB)
    assert 0.95 * MB < len(base.body) < len(body) < 1.1 * MB
    assert body.startswith(base.body[:-100])
    assert 500 < len(encode_document(body, base)) < 10_000 < len(encode_document(body))
