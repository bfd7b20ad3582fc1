"""A conversation is cut to what fits into the context, or refused with both numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.prompt.chat_template import Segment
from segue.engine.prompt.messages import PromptMessage, read_conversation
from segue.engine.prompt.truncation import COUNTED_CONTEXTS, ContextLimits, Truncation, pieces
from segue.history.chains import History, Turn
from segue.protocol.items import user_message
from segue.protocol.problems import Problem, Refused
from segue.testing.store_conformance import sample_id

some_text = st.text()  # without surrogates, which no request can hold


def turn(parent: Turn | None, *items: bytes) -> Turn:
    return Turn(id=sample_id("turn"), parent=parent, input=items, output=(), calls=frozenset(), stored=True)


def plain(messages: Sequence[PromptMessage]) -> list[Segment]:
    """A template that adds nothing, so that tokens can be counted by eye."""
    return [Segment(message.text, control=False) for message in messages]


def letters(text: str, control: bool) -> list[int]:
    """A tokenizer with one token for each character."""
    return [ord(char) for char in text]


def chain(*texts: str) -> Turn | None:
    parent: Turn | None = None
    for text in texts:
        parent = turn(parent, user_message(text))
    return parent


def truncated(parent: Turn | None, text: str, truncation: str, limits: ContextLimits) -> str:
    """What is left of a conversation."""
    conversation = read_conversation(History(parent, (user_message(text),)), "S")
    return "".join(map(chr, Truncation(plain, letters, limits).apply(conversation, truncation).tokens))


def too_long(parent: Turn | None, text: str, truncation: str, limits: ContextLimits) -> Problem:
    with pytest.raises(Refused) as caught:
        truncated(parent, text, truncation, limits)
    return caught.value.problem


class TestTruncation:
    LIMITS = ContextLimits(context=10, room=3)

    @pytest.mark.parametrize("truncation", ["disabled", "auto"])
    def test_what_fits_is_kept_whole(self, truncation: str) -> None:
        """Truncation changes nothing where nothing is too long."""
        assert truncated(chain("aa", "bb"), "cc", truncation, self.LIMITS) == "Saabbcc"

    def test_too_long_is_refused_with_both_numbers(self) -> None:
        """Without truncation the client learns how long its input is, and how long it may be."""
        problem = too_long(chain("aaa", "bbb"), "ccc", "disabled", self.LIMITS)
        assert (problem.code, problem.param) == ("context_length_exceeded", "input")
        assert "10 tokens" in problem.message
        assert "holds 10" in problem.message

    def test_one_token_of_output_must_fit(self) -> None:
        """An input that fills the context to the last token but one is still answered."""
        assert truncated(None, "c" * 8, "disabled", self.LIMITS) == "S" + "c" * 8

    def test_auto_drops_the_oldest_turns_whole(self) -> None:
        """As few as make room for an answer, never the instructions or the input."""
        assert truncated(chain("aaa", "bbb"), "cc", "auto", self.LIMITS) == "Sbbbcc"

    def test_auto_drops_every_turn_before_it_gives_up_room(self) -> None:
        """An input that leaves less room than wanted is answered, without its history."""
        assert truncated(chain("aaa", "bbb"), "c" * 8, "auto", self.LIMITS) == "S" + "c" * 8

    def test_auto_never_drops_the_input(self) -> None:
        """New input that is too long by itself is refused."""
        problem = too_long(chain("aaa", "bbb"), "c" * 9, "auto", self.LIMITS)
        assert problem.code == "context_length_exceeded"
        assert "10 tokens" in problem.message

    @given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 12))
    def test_auto_drops_the_fewest_that_do(self, lengths: list[int], size: int) -> None:
        """For any chain: what is left fits, and with one turn more it would not leave the room that is wanted."""
        texts = [chr(ord("a") + index) * length for index, length in enumerate(lengths)]
        if 1 + size >= self.LIMITS.context:
            assert too_long(chain(*texts), "z" * size, "auto", self.LIMITS).code == "context_length_exceeded"
            return
        target = self.LIMITS.context - self.LIMITS.room
        sums = [1 + sum(lengths[dropped:]) + size for dropped in range(len(lengths) + 1)]
        dropped = next((index for index, total in enumerate(sums) if total <= target), len(lengths))
        expected = "".join(["S", *texts[dropped:], "z" * size])
        assert truncated(chain(*texts), "z" * size, "auto", self.LIMITS) == expected

    def test_a_huge_input_is_not_read_to_its_end(self) -> None:
        """Nobody can keep the engine busy by sending a text a thousand times too long."""
        read_characters = 0

        def counting(text: str, control: bool) -> list[int]:
            nonlocal read_characters
            read_characters += len(text)
            return letters(text, control)

        conversation = read_conversation(History(None, (user_message("word " * 1_000_000),)), None)
        with pytest.raises(Refused) as caught:
            Truncation(plain, counting, ContextLimits(1000, 100)).apply(conversation, "disabled")
        assert f"more than {1000 * COUNTED_CONTEXTS} tokens" in caught.value.problem.message
        assert read_characters < 50_000

    @given(some_text, st.integers(1, 10))
    def test_pieces_are_the_text(self, text: str, size: int) -> None:
        """For any text: pieces are no longer than asked for, and together nothing is lost."""
        found = list(pieces(text, size))
        assert "".join(found) == text
        assert all(len(piece) <= size for piece in found)

    def test_pieces_begin_with_a_space(self) -> None:
        """A word is not cut, so it becomes the same tokens as in the whole text."""
        assert list(pieces("one two three", 8)) == ["one two", " three"]
