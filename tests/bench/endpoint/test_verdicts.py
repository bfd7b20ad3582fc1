"""What answers prove, as a table of cases."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.bench.endpoint.verdicts import (
    HISTORY_RULES,
    HistoryJudgement,
    HistoryVerdict,
    RecallAnswer,
    RecallReference,
    Support,
    judge_all,
    judge_answer,
    support_of,
    told,
    weigh,
)
from segue.client.recovery import FaultKind, TurnFault

KNOWS = RecallAnswer(asked="far", word="amber-1", text="It is AMBER-1.", input_tokens=1000)
BLANK = RecallAnswer(asked="far", word="amber-1", text="You told me none.", input_tokens=100)
SAYS = RecallAnswer(asked="far", word="amber-1", text="This is answer 5.", input_tokens=1000)
ALONE = RecallAnswer(asked="far", word="-", text="This is answer 1.", input_tokens=100)

RECALLS = RecallReference(replayed=KNOWS, alone=BLANK)
SCRIPTED = RecallReference(replayed=SAYS, alone=ALONE)
CONSTANT = RecallReference(replayed=replace(SAYS, text="Hm."), alone=replace(ALONE, text="hm. "))
SILENT = RecallReference(replayed=replace(SAYS, text="Hm.", input_tokens=None), alone=replace(ALONE, text="Hm."))


@pytest.mark.parametrize(
    ("answer", "reference", "verdict", "rule"),
    [
        (KNOWS, RECALLS, "kept", 0),
        (replace(KNOWS, input_tokens=100), SCRIPTED, "kept", 0),
        (replace(BLANK, input_tokens=990), RECALLS, "inconclusive", 1),
        (BLANK, RECALLS, "forgets", 2),
        (replace(BLANK, input_tokens=None), RECALLS, "forgets", 2),
        (BLANK, RecallReference(replayed=KNOWS), "forgets", 2),
        (replace(SAYS, input_tokens=100), SCRIPTED, "kept", 4),
        (replace(ALONE, input_tokens=1000), SCRIPTED, "inconclusive", 3),
        (SAYS, SCRIPTED, "kept", 4),
        (replace(SAYS, input_tokens=None), SCRIPTED, "kept", 4),
        (replace(ALONE, word="amber-1"), SCRIPTED, "forgets", 5),
        (replace(SAYS, text="Hm."), CONSTANT, "kept", 6),
        (replace(SAYS, text="Something else.", input_tokens=900), SCRIPTED, "kept", 6),
        (replace(SAYS, text="Hm.", input_tokens=120), CONSTANT, "inconclusive", 7),
        (replace(SAYS, text="Hm.", input_tokens=500), CONSTANT, "inconclusive", 8),
        (replace(SAYS, text="Hm."), SILENT, "inconclusive", 8),
        (SAYS, RecallReference(), "inconclusive", 8),
        (SAYS, RecallReference(alone=ALONE), "inconclusive", 8),
    ],
)
def test_what_an_answer_proves(
    answer: RecallAnswer, reference: RecallReference, verdict: HistoryVerdict, rule: int
) -> None:
    assert judge_answer(answer, reference) == HistoryJudgement(verdict, HISTORY_RULES[rule].why)


def test_a_question_is_compared_with_the_same_question_only() -> None:
    near = replace(SAYS, asked="near")
    assert weigh(near, SCRIPTED).same_text == "unclear"
    asked_near = RecallReference(replayed=near, alone=ALONE)
    assert weigh(near, asked_near).same_text == "as replayed"
    assert weigh(replace(ALONE, asked="near"), asked_near).same_text == "unclear"


def test_token_counts_that_hardly_differ_tell_nothing() -> None:
    reference = RecallReference(replayed=replace(SAYS, text="Hm.", input_tokens=110), alone=ALONE)
    assert weigh(replace(SAYS, input_tokens=110), reference).counted == "unclear"


def test_the_worst_answer_decides() -> None:
    kept, lost, unclear = (HistoryJudgement(one, one) for one in ("kept", "forgets", "inconclusive"))
    assert judge_all([kept, kept]) == kept
    assert judge_all([kept, unclear]) == unclear
    assert judge_all([unclear, lost, kept]) == lost
    assert judge_all([]).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("kind", "status", "code", "support", "words"),
    [
        ("refused", 404, "not_found", "no", "404 not_found"),
        ("refused", 501, None, "no", "501 No."),
        ("refused", 401, "invalid_api_key", "failed", "401 invalid_api_key"),
        ("refused", 429, None, "failed", "429 No."),
        ("refused", 503, None, "failed", "503 No."),
        ("refused", None, None, "no", "refused: No."),
        ("upgrade_refused", 426, None, "no", "no WebSocket: 426 No."),
        ("upgrade_refused", 502, None, "failed", "no WebSocket: 502 No."),
        ("unreadable", 200, None, "no", "what came is not this API: No."),
        ("timeout", None, None, "failed", "it did not answer in time: No."),
        ("connect_failed", None, None, "failed", "no connection: No."),
    ],
)
def test_what_a_fault_says_of_support(
    kind: FaultKind, status: int | None, code: str | None, support: Support, words: str
) -> None:
    fault = TurnFault(kind=kind, transport="http", status=status, code=code, message="No.")
    assert (support_of(fault), told(fault)) == (support, words)


def test_without_a_fault_it_is_supported() -> None:
    assert support_of(None) == "yes"
