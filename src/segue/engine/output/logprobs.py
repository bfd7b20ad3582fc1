"""Log probabilities of the tokens of an answer, each with the bytes of the text that it brought: pure.

Tokens and text do not have the same seams. A token can end within a character; of its text, the end may belong to a
call or stand behind a stop; bytes that are no text are shown as U+FFFD. `Alignment` puts them together again, so that
what a client gets is exactly about the text that it gets: the bytes of the tokens are those of the text, one after the
other, and a token of which only the beginning belongs to the text is there with these bytes only.
Not here: which text a client gets (`reader`), and where the numbers come from (`model`).
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import nlargest
from math import exp, log

import msgspec

#: The least log probability that is told; JSON has no infinity.
LEAST = -9999.0

_REPLACEMENT = "\ufffd".encode()
_CONTINUATION = 0x80  # the first two bits of all bytes of a character in UTF-8 but its first one


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that might have been; `bytes` are empty for a control token, which is no text."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token of the text, as it stands in the response."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: Sequence[TopLogprob]


class Score(msgspec.Struct, frozen=True):
    """How likely a token was, and which were the likeliest in its place, best first."""

    logprob: float
    top: Sequence[TopLogprob]


class ScoredText(msgspec.Struct, frozen=True):
    """A piece of text for the user, with the tokens that it is of."""

    text: str
    logprobs: Sequence[TokenLogprob]


def log_probabilities(logits: Sequence[float], token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of a token, and the `top` likeliest tokens with theirs, from a model's logits."""
    highest = max(logits)
    # all of a vocabulary goes through here for each token, so it goes through functions that loop in C
    whole = highest + log(sum(map(exp, map((-highest).__add__, logits))))
    best = nlargest(top, range(len(logits)), key=logits.__getitem__)
    return _bounded(logits[token] - whole), [(one, _bounded(logits[one] - whole)) for one in best]


def _bounded(logprob: float) -> float:
    return max(LEAST, logprob)  # in this order it is the first for what is no number, too


class _Share:
    """What a token shows in the text."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.shown = bytearray()

    def entry(self, shown: bytes) -> TokenLogprob:
        return TokenLogprob(shown.decode("utf-8", "replace"), self.score.logprob, list(shown), self.score.top)


class Alignment:
    """Gives out text together with its tokens, and only at seams that both have; the rest waits.

    Of each token that wrote something `wrote` is told, then `passed` of the text that the client may have.
    """

    def __init__(self) -> None:
        self._shares: deque[_Share] = deque()  # those that were not given out
        self._text = b""  # that was passed, and not given out
        self._raw = b""  # of a character that is not whole yet
        self._owners: list[_Share] = []  # of each of its bytes

    def wrote(self, piece: bytes, score: Score) -> None:
        """Take the bytes of the next token."""
        share = _Share(score)
        self._shares.append(share)
        raw, owners = self._raw + piece, self._owners + [share] * len(piece)
        at = 0
        for length, is_text in _runs(raw):
            if is_text:
                for byte, owner in zip(raw[at : at + length], owners[at : at + length], strict=True):
                    owner.shown.append(byte)
            else:
                owners[at].shown += _REPLACEMENT
            at += length
        self._raw, self._owners = raw[at:], owners[at:]

    def passed(self, text: str) -> list[ScoredText]:
        """Take text that goes to the client; return as much of it as ends with a token."""
        self._text += text.encode()
        count = end = at = 0
        for number, share in enumerate(self._shares, 1):
            at += len(share.shown)
            if at > len(self._text) or (self._owners and share is self._owners[0]):
                break
            if at == len(self._text) or self._text[at] & 0xC0 != _CONTINUATION:  # else it is within a character
                count, end = number, at
        shares = [self._shares.popleft() for _ in range(count)]
        given, self._text = self._text[:end], self._text[end:]
        return _scored(given, shares)

    def end(self) -> list[ScoredText]:
        """Say that no more text goes to the client; return what waits, the last token maybe cut."""
        shares, text = list(self._shares), self._text
        self._shares.clear()
        self._text = b""
        return _scored(text, shares)


def _scored(text: bytes, shares: Sequence[_Share]) -> list[ScoredText]:
    """Return a text with its tokens; whatever shows nothing in it is left out."""
    entries = []
    at = 0
    for share in shares:
        shown = text[at : at + len(share.shown)]
        if shown:
            entries.append(share.entry(shown))
        at += len(shown)
    return [ScoredText(text.decode(), entries)] if text else []


def _runs(raw: bytes) -> Iterator[tuple[int, bool]]:
    """Yield the lengths of runs of bytes that are text (True), or are none and show as one U+FFFD (False).

    The beginning of a character at the end is left.
    """
    while raw:
        try:
            yield codecs.utf_8_decode(raw)[1], True
        except UnicodeDecodeError as error:
            yield error.start, True
            yield error.end - error.start, False
            raw = raw[error.end :]
        else:
            return
