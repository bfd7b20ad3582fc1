"""Reasoning that a client of Chat Completions sends back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from segue.dialects.chat.reasoning_details import PlacedReasoning, read_details, without_sealed, write_detail
from segue.dialects.sealed_reasoning import seal

Json = dict[str, Any]
SEALED = seal("api.anthropic.com", '{"signature":"c2ln"}')


def reasoning(**fields: object) -> bytes:
    return json.dumps({"type": "reasoning", "id": "rs_1", "summary": [], **fields}).encode()


def summary(*texts: str) -> list[Json]:
    return [{"type": "summary_text", "text": text} for text in texts]


@pytest.mark.parametrize("texts", [(), ("hm",), ("one", "two")])
def test_a_detail_holds_all_that_the_provider_wants_back(texts: tuple[str, ...]) -> None:
    detail = write_detail(reasoning(summary=summary(*texts), encrypted_content=SEALED), 3)
    assert detail is not None
    assert detail["format"] == "segue-v1"
    found = read_details(msgspec.Raw(json.dumps([detail]).encode()))
    assert found is not None
    (read,) = found
    wanted = {"type": "reasoning", "summary": summary("\n\n".join(texts)) if texts else [], "encrypted_content": SEALED}
    assert read.index == 3
    assert json.loads(read.item) == wanted


def test_reasoning_that_nobody_wants_back_has_no_detail() -> None:
    assert write_detail(reasoning(summary=summary("hm")), 0) is None


@pytest.mark.parametrize(
    "details",
    [
        [{"type": "reasoning.encrypted", "data": "gAAAA"}],
        [{"type": "reasoning.text", "text": "hm", "signature": "c2ln"}],
        [{"type": "reasoning.text", "text": "hm"}],
        [{"signature": SEALED}, {"data": "gAAAA"}],
        [{"signature": 7}],
        {"signature": SEALED},
    ],
)
def test_details_that_are_not_from_here_are_not_read(details: object) -> None:
    assert read_details(msgspec.Raw(json.dumps(details).encode())) is None


def test_a_detail_without_an_index_has_the_place_that_it_stands_at() -> None:
    read = read_details(msgspec.Raw(json.dumps([{"data": SEALED}, {"data": SEALED}]).encode()))
    assert read is not None
    assert [one.index for one in read] == [0, 1]
    assert isinstance(read[0], PlacedReasoning)


def test_details_from_here_do_not_pass_to_a_provider_of_this_api() -> None:
    """Its own ones come and go unsealed; others are for another provider."""
    own, foreign = {"type": "reasoning.text", "text": "hm", "signature": SEALED}, {"data": "gAAAA"}
    answer: Json = {"role": "assistant", "content": SEALED, "mood": 1}
    given = [
        b'{ "role":"user","content":"x" }',
        json.dumps({**answer, "reasoning_details": [own, own]}).encode(),
        json.dumps({**answer, "reasoning_details": [own, foreign, 7]}).encode(),
        json.dumps(answer).encode(),
        b'{"reasoning_details":"segue:1:x"}',
        b'["segue:1:x"]',
    ]
    cleaned = without_sealed([msgspec.Raw(message) for message in given])
    assert cleaned is not None
    assert [json.loads(message) for message in cleaned[1:3]] == [
        answer,
        {**answer, "reasoning_details": [foreign, 7]},
    ]
    assert (cleaned[0], *cleaned[3:]) == (given[0], *given[3:])
    assert without_sealed([msgspec.Raw(message) for message in (given[0], *given[3:])]) is None
