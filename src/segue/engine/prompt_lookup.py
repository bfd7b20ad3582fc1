"""Drafts the next tokens of an answer from the text before it, and tells whether that pays: pure.

Answers of agents often repeat what they have read: names, paths, lines of a file. So if the last few tokens stood
somewhere before, what followed them there is a *draft* of what follows now (prompt lookup decoding). The model computes
the draft in the same step as the token before it, and every drafted token that it would have chosen itself saves a
step. The answer is the same as without. A longer step takes longer, and how much longer depends on the model, the
processor and the length of the context. So `DraftGain` compares what steps took. Not here: computing (`worker`).
"""

from __future__ import annotations

from collections.abc import Sequence

#: How many tokens must have stood before: fewer are found more often, and are followed by something else more often.
_MATCHED = 3
#: A token has a number of fewer bits.
_TOKEN_BITS = 21
#: After drafts that were wholly wrong, so many times none is made, at most.
_LONGEST_REST = 32
#: How much of an average the newest step is.
_NEWEST = 0.1
#: Steps of either kind before they are compared.
_FEWEST_STEPS = 8
#: Drafting pays if it is faster by this factor. If it does not, every so many times it is tried again.
_LEAST_GAIN = 1.05
_TRIED_EVERY = 64


class PromptLookup:
    """Makes drafts for one answer; `tokens` are those of its prompt and of the answer so far, and may grow."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._followed: dict[int, int] = {}  # some tokens that stood together, and where the next one is
        self._indexed = _MATCHED
        self._misses = self._rest = 0

    def draft(self, most: int) -> list[int]:
        """Return up to `most` tokens that may follow; none if there is no reason for any."""
        if self._rest:
            self._rest -= 1
            return []
        tokens = self._tokens
        for end in range(self._indexed, len(tokens)):
            self._followed[_key(tokens[end - _MATCHED : end])] = end
        self._indexed = max(self._indexed, len(tokens))
        at = self._followed.get(_key(tokens[-_MATCHED:])) if len(tokens) >= _MATCHED else None
        return [] if at is None else list(tokens[at : at + most])

    def judge(self, accepted: int) -> None:
        """Take in how many tokens of the last draft were right."""
        self._misses = 0 if accepted else self._misses + 1
        self._rest = min(_LONGEST_REST, 2**self._misses - 1)


class DraftGain:
    """Compares steps with a draft and without, by how long they took for each token of an answer."""

    def __init__(self) -> None:
        self._plain = _Average()
        self._drafted = _Average()
        self._tokens = _Average()
        self._skipped = 0

    def is_tried(self) -> bool:
        """Return whether to make a draft now: it pays, or it is not known yet, or it is to be known again."""
        if self._drafted.count < _FEWEST_STEPS or self.pays:
            return self._plain.count >= _FEWEST_STEPS
        self._skipped = (self._skipped + 1) % _TRIED_EVERY
        return self._skipped == 0

    @property
    def pays(self) -> bool:
        """Whether steps with a draft have made an answer faster."""
        return self._tokens.value * self._plain.value > _LEAST_GAIN * self._drafted.value

    def add_plain(self, time_s: float) -> None:
        """Take in a step without a draft."""
        self._plain.add(time_s)

    def add_drafted(self, time_s: float, tokens: int) -> None:
        """Take in a step with one, and how many tokens of the answer it gave."""
        self._drafted.add(time_s)
        self._tokens.add(tokens)


class _Average:
    """An average in which newer values weigh more."""

    def __init__(self) -> None:
        self.value = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) * max(_NEWEST, 1 / self.count)


def _key(tokens: Sequence[int]) -> int:
    key = 0
    for token in tokens:
        key = (key << _TOKEN_BITS) | token
    return key
