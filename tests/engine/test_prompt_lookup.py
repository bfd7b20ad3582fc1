"""Drafts from earlier text, and whether they pay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.engine.prompt_lookup import DraftGain, PromptLookup


def test_what_followed_the_same_tokens_before_may_follow_now() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 1, 2, 3]
    lookup = PromptLookup(tokens)
    assert lookup.draft(2) == [4, 5]
    tokens += [7, 1, 2, 3]
    assert lookup.draft(9) == [7, 1, 2, 3], "the newest place counts"
    tokens.append(9)
    assert lookup.draft(9) == []


@given(tokens=st.lists(st.integers(0, 3), max_size=40), most=st.integers(1, 5), grown=st.lists(st.integers(0, 3)))
def test_a_draft_is_a_piece_of_the_text(tokens: list[int], most: int, grown: list[int]) -> None:
    """Behind the last three tokens, wherever they stood before; an index that grows finds the same."""
    lookup = PromptLookup(tokens)
    lookup.draft(most)
    tokens += grown
    found = lookup.draft(most)
    assert found == PromptLookup(list(tokens)).draft(most)
    places = [at for at in range(3, len(tokens)) if tokens[at - 3 : at] == tokens[-3:]]
    assert found == (tokens[places[-1] : places[-1] + most] if places else [])


def test_drafts_that_are_always_wrong_become_rare() -> None:
    """And one that was right makes them common again."""
    lookup = PromptLookup([1, 2, 3, 1, 2, 3])
    made = 0
    for _ in range(320):
        if lookup.draft(1):
            made += 1
            lookup.judge(0)
    assert 10 <= made <= 20
    while not lookup.draft(1):
        pass
    lookup.judge(1)
    assert lookup.draft(1)


def tried(gain: DraftGain, times: int) -> int:
    return sum(gain.is_tried() for _ in range(times))


def test_drafting_is_tried_and_goes_on_where_it_pays() -> None:
    gain = DraftGain()
    assert not tried(gain, 9), "it is not known yet what a step without takes"
    for _ in range(8):
        gain.add_plain(1.0)
    assert tried(gain, 9) == 9
    for _ in range(8):
        gain.add_drafted(1.5, 3)
    assert gain.pays
    assert tried(gain, 9) == 9


def test_where_it_does_not_pay_it_is_tried_again_from_time_to_time() -> None:
    gain = DraftGain()
    for _ in range(8):
        gain.add_plain(1.0)
        gain.add_drafted(2.0, 2)
    assert not gain.pays
    assert tried(gain, 640) == 10
    for _ in range(40):
        gain.add_drafted(2.0, 4)
    assert gain.pays
