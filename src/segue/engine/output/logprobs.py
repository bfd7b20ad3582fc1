"""Log probabilities of the tokens of an answer, aligned with the bytes of its text: pure.

Tokens and text do not have the same boundaries. A token can end within a character; its end may belong to a call or
come after a stop sequence; bytes that are not UTF-8 show as U+FFFD. `LogprobAlignment` aligns the two again, so that
a client gets log probabilities of exactly the text that it gets: the bytes of the tokens, one after the other, are
those of the text. If only the beginning of a token belongs to the text, the token has only these bytes.
Not here: which text a client gets (`answer_reader`), and where the numbers come from (`model`).
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import nlargest
from math import exp, log

import msgspec

#: The smallest log probability to report; JSON has no infinity.
LEAST = -9999.0

_REPLACEMENT = "\ufffd".encode()
_CONTINUATION = 0x80  # the first two bits of all bytes of a character in UTF-8 but its first one


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that could have been sampled; `bytes` is empty for a control token, which is not text."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token of the text, as the response shows it."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: Sequence[TopLogprob]


class Score(msgspec.Struct, frozen=True):
    """The log probability of a token, and the likeliest tokens in its place, best first."""

    logprob: float
    top: Sequence[TopLogprob]


#: That of a token that was sampled in a thought: it may begin the text of the answer, where it is left out.
UNSCORED = Score(LEAST, ())


class ScoredText(msgspec.Struct, frozen=True):
    """A piece of text for the user, with its tokens."""

    text: str
    logprobs: Sequence[TokenLogprob]


def log_probabilities(logits: Sequence[float], token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the log probability of a token, and the `top` likeliest tokens with theirs, from a model's logits."""
    highest = max(logits)
    # for each token this goes through the whole vocabulary, so it uses functions that loop in C
    whole = highest + log(sum(map(exp, map((-highest).__add__, logits))))
    best = nlargest(top, range(len(logits)), key=logits.__getitem__)
    return _bounded(logits[token] - whole), [(one, _bounded(logits[one] - whole)) for one in best]


def _bounded(logprob: float) -> float:
    return max(LEAST, logprob)  # in this order NaN becomes LEAST, too


class _TokenText:
    """The bytes that a token shows in the text."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.shown = bytearray()

    def entry(self, shown: bytes) -> TokenLogprob:
        return TokenLogprob(shown.decode("utf-8", "replace"), self.score.logprob, list(shown), self.score.top)


class LogprobAlignment:
    """Gives out text together with its tokens, only at boundaries that both have; the rest is held back.

    Call `add_token` with each token, then `release` with the text that the client may have.
    """

    def __init__(self) -> None:
        self._tokens: deque[_TokenText] = deque()  # held back
        self._text = b""  # released, and held back
        self._raw = b""  # the bytes of an incomplete character
        self._owners: list[_TokenText] = []  # the token of each of these bytes

    def add_token(self, piece: bytes, score: Score) -> None:
        """Add the bytes of the next token."""
        token = _TokenText(score)
        self._tokens.append(token)
        raw, owners = self._raw + piece, self._owners + [token] * len(piece)
        at = 0
        for length, is_text in _runs(raw):
            if is_text:
                for byte, owner in zip(raw[at : at + length], owners[at : at + length], strict=True):
                    owner.shown.append(byte)
            else:
                owners[at].shown += _REPLACEMENT
            at += length
        self._raw, self._owners = raw[at:], owners[at:]

    def keep_last(self, size_bytes: int) -> None:
        """Forget what the tokens show, up to so many bytes at its end: that before them is no text of the answer."""
        surplus = max(0, sum([len(token.shown) for token in self._tokens]) - size_bytes)
        while self._tokens:
            token = self._tokens[0]
            cut = min(surplus, len(token.shown))
            del token.shown[:cut]
            surplus -= cut
            if token.shown or token in self._owners:
                return
            self._tokens.popleft()

    def release(self, text: str) -> list[ScoredText]:
        """Add text that goes to the client; return as much of it as ends with a token."""
        self._text += text.encode()
        count = end = at = 0
        for number, token in enumerate(self._tokens, 1):
            at += len(token.shown)
            if at > len(self._text) or (self._owners and token is self._owners[0]):
                break
            if at == len(self._text) or self._text[at] & 0xC0 != _CONTINUATION:  # else it is within a character
                count, end = number, at
        tokens = [self._tokens.popleft() for _ in range(count)]
        given, self._text = self._text[:end], self._text[end:]
        return _scored(given, tokens)

    def end(self) -> list[ScoredText]:
        """Return what is held back, since no more text follows; the last token may be cut."""
        tokens, text = list(self._tokens), self._text
        self._tokens.clear()
        self._text = b""
        return _scored(text, tokens)


def _scored(text: bytes, tokens: Sequence[_TokenText]) -> list[ScoredText]:
    """Return a text with its tokens, without those that show nothing in it."""
    entries = []
    at = 0
    for token in tokens:
        shown = text[at : at + len(token.shown)]
        if shown and token.score is not UNSCORED:
            entries.append(token.entry(shown))
        at += len(shown)
    return [ScoredText(text.decode(), entries)] if text else []


def _runs(raw: bytes) -> Iterator[tuple[int, bool]]:
    """Yield the lengths of runs of bytes that are UTF-8 (True), or are not and show as one U+FFFD (False).

    An incomplete character at the end is in no run.
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
