"""What is asked: words that nobody can guess, in one turn, and asked for in two others; and what it costs."""

from __future__ import annotations

import pytest

from segue.bench.endpoint.plan import (
    ENDPOINT_ARMS,
    CodeWords,
    EndpointPlan,
    asked_in,
    code_words,
    make_create,
    planned_cost,
    said_by,
    user_text,
    word_of,
)
from segue.upstreams.scripted_recall import recalled_word

WORDS = CodeWords("amber-00001", "cedar-00002")


def test_words_come_from_the_entropy() -> None:
    assert code_words(bytes(8)) == CodeWords("maple-00000", "maple-00000")
    assert code_words(bytes([0, 0, 1, 9, 255, 255, 255, 255])) == CodeWords("river-00033", "ember-70911")


@pytest.mark.parametrize("turns", [3, 4, 7])
def test_only_the_first_turn_tells_the_words_and_two_turns_ask_for_them(turns: int) -> None:
    plan = EndpointPlan(model="m", turns=turns, turn_bytes=100)
    texts = [user_text(number, WORDS, plan) for number in range(1, turns + 1)]
    assert [WORDS.near in text for text in texts] == [WORDS.far in text for text in texts]
    assert [WORDS.near in text for text in texts] == [True] + [False] * (turns - 1)
    asked = [asked_in(number, plan) for number in range(1, turns + 1)]
    assert (asked[1], asked[-1], sum(one is not None for one in asked)) == ("near", "far", 2)
    for number in (2, turns):
        items = [text.encode() for text in texts[:number]]
        one = asked[number - 1]
        assert one is not None
        assert recalled_word(items, items.copy) == word_of(one, WORDS)
    assert all(100 < len(text) < 300 for text in texts)


def test_a_create_names_its_parent_only_if_it_has_one() -> None:
    plan = EndpointPlan(model="m")
    create = make_create(plan, [said_by("user", "Hi.")], store=True)
    message = {"type": "message", "role": "user", "content": "Hi."}
    assert create == {"model": "m", "store": True, "max_output_tokens": 256, "input": [message]}
    assert make_create(plan, [], store=False, previous="resp_1")["previous_response_id"] == "resp_1"


def test_the_cost_grows_with_turns_rounds_and_bytes() -> None:
    small = planned_cost(EndpointPlan(model="m", turns=3, rounds=1, turn_bytes=0, max_output_tokens=16))
    assert small.requests == 3 * len(ENDPOINT_ARMS) + 13
    assert small.output_tokens == 16 * small.requests
    for more in ({"turns": 6}, {"rounds": 2}, {"turn_bytes": 400}):
        given = {"turns": 3, "rounds": 1, "turn_bytes": 0, **more}
        assert planned_cost(EndpointPlan(model="m", **given)).input_tokens > small.input_tokens
