"""What a server's answers prove: whether a way is supported, and whether the model saw the earlier turns. Pure.

The theory: an answer proves a kept history if it holds what only the history says. If a model cannot recall words, as a
scripted one cannot, two other answers help: that to the same turn with the whole history in the request (`replayed`)
and that to the question alone (`alone`). If those two differ, an answer that equals one of them tells which of the two
the model saw; and so does the number of input tokens that the server counted. What none of this tells is inconclusive.
Rules are tables: the first that fits decides. Not here: what was asked (`plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from segue.bench.endpoint.plan import Asked
from segue.client.errors import cut
from segue.client.recovery import TurnFault

HistoryVerdict = Literal["kept", "forgets", "refuses", "inconclusive"]
#: `failed` says nothing about what the server supports: it was away, busy, too slow, or wanted another key.
Support = Literal["yes", "no", "failed", "not tried"]
Counted = Literal["as replayed", "as alone", "unclear"]

#: Token counts must differ by so many to tell anything; and the count must be near one of the two.
_LEAST_GAP = 16
_NEAR_END = 0.25


class RecallAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to the question for a code word."""

    asked: Asked
    word: str
    text: str
    input_tokens: int | None = None

    @property
    def recalled(self) -> bool:
        """Whether the answer holds the word."""
        return self.word.casefold() in self.text.casefold()


class RecallReference(msgspec.Struct, frozen=True, kw_only=True):
    """What the same model answers with the whole history in the request, and without any."""

    replayed: RecallAnswer | None = None
    alone: RecallAnswer | None = None


class RecallEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one answer."""

    recalled: bool
    model_recalls: bool
    """Whether the model gave the word when the request held the whole history."""
    same_text: Counted
    counted: Counted


class HistoryJudgement(msgspec.Struct, frozen=True):
    """A verdict, and what it rests on."""

    verdict: HistoryVerdict
    why: str


class _HistoryRule(msgspec.Struct, frozen=True):
    verdict: HistoryVerdict
    why: str
    fits: Callable[[RecallEvidence], bool]


HISTORY_RULES: tuple[_HistoryRule, ...] = (
    _HistoryRule("kept", "the answer holds the code word", lambda seen: seen.recalled),
    _HistoryRule(
        "inconclusive",
        "the server counted the whole history, but the model did not give the word",
        lambda seen: seen.model_recalls and seen.counted == "as replayed",
    ),
    _HistoryRule(
        "forgets",
        "the model knows the word when the request holds the history, and does not know it here",
        lambda seen: seen.model_recalls,
    ),
    _HistoryRule(
        "inconclusive",
        "the answer is that to the last turn alone, but the server counted the whole history",
        lambda seen: _lost(seen.same_text) and _kept(seen.counted),
    ),
    _HistoryRule(
        "kept", "the answer is that to the whole history, not that to the last turn", lambda seen: _kept(seen.same_text)
    ),
    _HistoryRule(
        "forgets",
        "the answer is that to the last turn alone, not that to the whole history",
        lambda seen: _lost(seen.same_text),
    ),
    _HistoryRule(
        "kept", "the server counted as many input tokens as for the whole history", lambda seen: _kept(seen.counted)
    ),
    _HistoryRule(
        "inconclusive",
        "the server counted the tokens of the last turn alone, which some do although the model sees more",
        lambda seen: _lost(seen.counted),
    ),
    _HistoryRule(
        "inconclusive",
        "the model answers the same with and without a history, and no token count tells more",
        lambda _: True,
    ),
)


def judge_answer(answer: RecallAnswer, reference: RecallReference) -> HistoryJudgement:
    """Judge one answer."""
    evidence = weigh(answer, reference)
    rule = next(rule for rule in HISTORY_RULES if rule.fits(evidence))
    return HistoryJudgement(rule.verdict, rule.why)


def weigh(answer: RecallAnswer, reference: RecallReference) -> RecallEvidence:
    """Compare an answer with those of the reference."""
    replayed, alone = reference.replayed, reference.alone
    return RecallEvidence(
        recalled=answer.recalled,
        model_recalls=replayed is not None and replayed.recalled,
        same_text=_same_text(answer, replayed, alone),
        counted=_counted(answer, replayed, alone),
    )


def judge_all(judgements: Sequence[HistoryJudgement]) -> HistoryJudgement:
    """Judge a way by all its answers: one lost history is one too many, and one that is not proven is not proven."""
    for verdict in ("forgets", "refuses", "inconclusive"):
        for one in judgements:
            if one.verdict == verdict:
                return one
    return judgements[0] if judgements else HistoryJudgement("inconclusive", "nothing was asked")


def _same_text(answer: RecallAnswer, replayed: RecallAnswer | None, alone: RecallAnswer | None) -> Counted:
    if replayed is None or alone is None or answer.asked != replayed.asked or _plain(replayed) == _plain(alone):
        return "unclear"
    if _plain(answer) == _plain(replayed):
        return "as replayed"
    return "as alone" if answer.asked == alone.asked and _plain(answer) == _plain(alone) else "unclear"


def _plain(answer: RecallAnswer) -> str:
    return " ".join(answer.text.casefold().split())


def _counted(answer: RecallAnswer, replayed: RecallAnswer | None, alone: RecallAnswer | None) -> Counted:
    if replayed is None or alone is None or answer.input_tokens is None:
        return "unclear"
    most, least = replayed.input_tokens, alone.input_tokens
    if most is None or least is None or most - least < _LEAST_GAP:
        return "unclear"
    place = (answer.input_tokens - least) / (most - least)
    if place >= 1 - _NEAR_END:
        return "as replayed"
    return "as alone" if place <= _NEAR_END else "unclear"


def _kept(counted: Counted) -> bool:
    return counted == "as replayed"


def _lost(counted: Counted) -> bool:
    return counted == "as alone"


# --- support ---------------------------------------------------------------------------------------------------------

#: Answers that say nothing about what a server supports: keys, limits, time, and the server's own faults.
_NOT_ABOUT_SUPPORT = frozenset({401, 402, 403, 408, 429, *range(500, 501), *range(502, 600)})
_OF_KIND = {
    "connect_failed": "no connection",
    "upgrade_refused": "the upgrade to WebSocket was refused",
    "connection_gone": "the connection was gone",
    "connection_lost": "the connection broke",
    "timeout": "it did not answer in time",
    "refused": "refused",
    "failed": "the response failed",
    "stream_ended": "the stream ended before the response did",
    "unreadable": "what came is not this API",
}


def support_of(fault: TurnFault | None) -> Support:
    """Say whether a way is supported by what its first fault was."""
    if fault is None:
        return "yes"
    if fault.status in _NOT_ABOUT_SUPPORT:
        return "failed"
    return "no" if fault.kind in {"refused", "upgrade_refused", "unreadable"} else "failed"


def told(fault: TurnFault) -> str:
    """Say in one printable line what went wrong. The transport has left keys out of the server's words.

    A code says enough; without one, the message is quoted.
    """
    if fault.kind in {"refused", "upgrade_refused"} and (fault.status or fault.code):
        parts = [str(part) for part in (fault.status, fault.code or fault.message) if part is not None]
        return cut(" ".join((*(["no WebSocket:"] if fault.kind == "upgrade_refused" else []), *parts)))
    return cut(": ".join(part for part in (_OF_KIND[fault.kind], fault.code or fault.message or "") if part))
