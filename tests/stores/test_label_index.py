"""The index of labels in memory: what it looks at, and what it leaves. The conformance suite has the rules."""

from __future__ import annotations

import msgspec
import pytest

from segue.protocol.ids import ResponseId
from segue.protocol.response_query import Label, ResponseQuery, metadata_label, model_label
from segue.stores.interface import QueryTooBroad
from segue.stores.label_index import IndexedResponse, LabelIndex
from segue.testing.store_samples import ALICE, sample_id

EVEN, ODD = metadata_label("even", "1"), metadata_label("odd", "1")


def entry(number: int) -> IndexedResponse:
    return IndexedResponse((float(number // 2), number), sample_id(str(number)))


def index_of(count: int, scan_limit: int) -> LabelIndex:
    index = LabelIndex(scan_limit)
    for number in range(count):
        index.add(ALICE, entry(number), [model_label("m"), ODD if number % 2 else EVEN])
    return index


def find(index: LabelIndex, *labels: Label, limit: int = 3) -> list[ResponseId]:
    return index.find(ALICE, ResponseQuery(labels=labels, limit=limit), after=None, is_alive=lambda _: True)


def test_a_query_that_is_too_broad_is_refused() -> None:
    index = index_of(20, scan_limit=19)
    with pytest.raises(QueryTooBroad):
        find(index, EVEN, ODD)
    assert find(index, EVEN, ODD, metadata_label("rare", "1")) == []
    assert find(index, model_label("m"), ODD) == [sample_id("19"), sample_id("17"), sample_id("15")]
    assert find(index_of(20, scan_limit=20), EVEN, ODD) == []
    assert len(find(index, limit=20)) == 20, "without a label all match"


def test_a_page_looks_at_what_it_shows() -> None:
    index, seen = index_of(100, scan_limit=1000), list[str]()

    def look(ident: ResponseId) -> bool:
        seen.append(ident)
        return True

    query = ResponseQuery(limit=4, order="asc")
    index.find(ALICE, query, after=entry(50).position, is_alive=look)
    assert seen == [sample_id(str(number)) for number in (51, 52, 53, 54)]
    seen.clear()
    index.find(ALICE, msgspec.structs.replace(query, order="desc"), after=entry(50).position, is_alive=look)
    assert seen == [sample_id(str(number)) for number in (49, 48, 47, 46)]


def test_what_is_taken_out_leaves_nothing() -> None:
    index = index_of(3, scan_limit=9)
    for number in (1, 0, 2):
        index.remove(ALICE, entry(number))
    assert find(index) == find(index, EVEN) == []
    index.add(ALICE, entry(1), [EVEN])
    index.clear()
    assert find(index) == []
