"""The query of a list of responses, and the list object."""

from __future__ import annotations

from math import inf

import msgspec
import pytest

from segue.protocol.problems import Problem
from segue.protocol.response_listing import (
    ListRequest,
    list_pieces,
    not_in_list,
    parse_list_request,
    too_broad,
)
from segue.protocol.response_query import ResponseQuery, metadata_label, model_label
from segue.protocol.responses import EncodedResponse
from segue.testing.store_samples import sample_id

ONE, TWO = sample_id("1"), sample_id("2")


def parsed(*query: tuple[str, str]) -> ListRequest:
    found = parse_list_request(query)
    assert isinstance(found, ListRequest), found
    return found


def test_a_list_has_twenty_of_the_newest() -> None:
    assert parsed() == ListRequest(ResponseQuery(limit=20, order="desc", created_from=-inf, created_before=inf))


def test_every_parameter_is_read() -> None:
    query = [("limit", "5"), ("order", "asc"), ("after", ONE), ("created_after", "10"), ("created_before", "20.5")]
    query += [("metadata[user]", "ann"), ("metadata[a]b]", "c=d"), ("metadata[]", ""), ("model", "gpt")]
    found = parsed(*query, ("include[]", "reasoning.encrypted_content"), ("include", "other"))
    labels = (metadata_label("", ""), metadata_label("a]b", "c=d"), metadata_label("user", "ann"), model_label("gpt"))
    expected = ResponseQuery(labels=labels, created_from=10, created_before=20.5, after=ONE, order="asc", limit=5)
    assert found == ListRequest(expected, backwards=False, encrypted=True)
    assert found.param == "after"


@pytest.mark.parametrize(("order", "opposite"), [("asc", "desc"), ("desc", "asc")])
def test_a_page_before_a_response_is_looked_for_the_other_way(order: str, opposite: str) -> None:
    found = parsed(("order", order), ("before", ONE))
    assert (found.query.order, found.query.after, found.backwards, found.param) == (opposite, ONE, True, "before")


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ([("limit", "0")], "invalid_value", "limit"),
        ([("limit", "101")], "invalid_value", "limit"),
        ([("limit", "many")], "invalid_value", "limit"),
        ([("order", "up")], "invalid_value", "order"),
        ([("created_after", "monday")], "invalid_value", "created_after"),
        ([("created_after", "nan")], "invalid_value", "created_after"),
        ([("created_before", "-nan")], "invalid_value", "created_before"),
        ([("metadata", "x")], "invalid_value", None),
        ([("status", "completed")], "invalid_value", None),
        ([(f"metadata[{n}]", "x") for n in range(18)], "invalid_value", "metadata"),
        ([("after", ONE), ("before", TWO)], "invalid_value", "before"),
        ([("after", "resp_1")], "response_not_found", "after"),
        ([("before", "")], "response_not_found", "before"),
        ([("metadata[a]", "\udc80")], "invalid_value", None),
        ([("metadata[\udc80]", "a")], "invalid_value", None),
        ([("after", "\udc80")], "invalid_value", None),
        ([("\udc80", "a")], "invalid_value", None),
    ],
)
def test_what_is_not_understood_is_refused(query: list[tuple[str, str]], code: str, param: str | None) -> None:
    found = parse_list_request(query)
    assert isinstance(found, Problem)
    assert (found.code, found.param) == (code, param)


def test_a_list_is_one_object() -> None:
    responses = [(ident, EncodedResponse(b'{"id":"%b",' % ident.encode(), b'{"model":"m"}')) for ident in (ONE, TWO)]
    assert msgspec.json.decode(b"".join(list_pieces(responses, has_more=True))) == {
        "object": "list",
        "data": [{"id": ONE, "model": "m"}, {"id": TWO, "model": "m"}],
        "first_id": ONE,
        "last_id": TWO,
        "has_more": True,
    }
    empty: object = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert msgspec.json.decode(b"".join(list_pieces([], has_more=False))) == empty


def test_refusals_say_what_to_do() -> None:
    assert not_in_list(ONE, "after").param == "after"
    assert "created_after" in too_broad().message
