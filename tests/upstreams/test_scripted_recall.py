"""The scripted model recalls code words of its history, and only those."""

from __future__ import annotations

import pytest

from segue.upstreams.scripted_recall import ASK_FIRST, ASK_SECOND, recalled_word, tell_words

TOLD = tell_words("amber-1", "cedar-2").encode()


@pytest.mark.parametrize(("question", "word"), [(ASK_FIRST, "amber-1"), (ASK_SECOND, "cedar-2")])
def test_the_word_that_is_asked_for_comes_from_the_history(question: str, word: str) -> None:
    items = [b"Hello.", TOLD, b"OK.", question.encode()]
    assert recalled_word(items[-1:], lambda: items) == word


@pytest.mark.parametrize(
    "items",
    [[], [b"Hello."], [TOLD], [ASK_FIRST.encode()], [ASK_FIRST.encode(), TOLD], [TOLD, b"What code word? Answer me."]],
    ids=["nothing", "no question", "told", "not told", "asked before", "another question"],
)
def test_otherwise_there_is_no_word(items: list[bytes]) -> None:
    assert recalled_word(items[-1:], lambda: items) is None


def test_the_history_is_not_looked_at_unless_a_word_is_asked_for() -> None:
    def items() -> list[bytes]:
        raise AssertionError

    assert recalled_word([b"Hello."], items) is None
