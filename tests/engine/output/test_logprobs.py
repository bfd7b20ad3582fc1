"""Log probabilities: the numbers are a distribution, and the bytes of the tokens are those of the text."""

from __future__ import annotations

from math import exp, inf, isclose, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.output.detokenizer import Detokenizer
from segue.engine.output.logprobs import (
    LEAST,
    LogprobAlignment,
    Score,
    ScoredText,
    TokenLogprob,
    TopLogprob,
    log_probabilities,
)

logits = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@given(logits, st.integers(0), st.integers(0, 20))
def test_the_numbers_are_a_distribution(values: list[float], token: int, top: int) -> None:
    """All probabilities together are one; the likeliest come first, the first of equals before the others."""
    token %= len(values)
    whole = [log_probabilities(values, one, 0)[0] for one in range(len(values))]
    assert isclose(sum(map(exp, whole)), 1, abs_tol=1e-9)
    logprob, best = log_probabilities(values, token, top)
    assert logprob == whole[token] <= 1e-9
    assert [one for one, _ in best] == sorted(range(len(values)), key=lambda one: (-values[one], one))[:top]
    assert [value for _, value in best] == [whole[one] for one, _ in best]


@pytest.mark.parametrize("values", [[0.0, -inf], [nan, nan], [-inf, -inf], [0.0, nan]])
def test_what_json_cannot_hold_is_the_least_that_is_told(values: list[float]) -> None:
    logprob, best = log_probabilities(values, 1, 2)
    assert logprob == LEAST
    assert all(value >= LEAST for _, value in best)


chunks = st.sampled_from([b"a", "é".encode(), "€".encode(), "😀".encode(), b"\xff", b"\xe2\x82", b""])


@given(
    st.lists(chunks, max_size=12), st.lists(st.integers(0, 5), max_size=40), st.lists(st.integers(1, 4), max_size=20)
)
def test_aligned_tokens_are_the_text(parts: list[bytes], sizes: list[int], releases: list[int]) -> None:
    """However the bytes are cut into tokens, and the text into releases: together it is all there, piece by piece."""
    data = b"".join(parts)
    text = Detokenizer().feed(data)
    alignment, given_out = LogprobAlignment(), []
    for size in [*sizes, *[1] * len(data)]:
        alignment.add_token(data[:size], Score(-1.0, ()))
        data = data[size:]
    left = text
    for size in [*releases, len(text)]:
        given_out += alignment.release(left[:size])
        left = left[size:]
    given_out += alignment.end()
    assert "".join(one.text for one in given_out) == text
    for one in given_out:
        assert b"".join(bytes(token.bytes) for token in one.logprobs) == one.text.encode()


def test_text_waits_for_the_end_of_its_token() -> None:
    likely = [TopLogprob("ab", -0.5, [97, 98])]
    alignment = LogprobAlignment()
    alignment.add_token(b"ab", Score(-0.5, likely))
    assert alignment.release("a") == []
    assert alignment.release("b") == [ScoredText("ab", [TokenLogprob("ab", -0.5, [97, 98], likely)])]
    assert alignment.end() == []


def test_the_last_token_is_cut_with_the_text() -> None:
    alignment = LogprobAlignment()
    alignment.add_token(b"ab", Score(-0.5, ()))
    assert alignment.release("a") == []
    assert alignment.end() == [ScoredText("a", [TokenLogprob("a", -0.5, [97], ())])]
