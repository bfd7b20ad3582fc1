"""The table of faults: each has a text, belongs to a check, and says what to do in one sentence."""

from __future__ import annotations

from typing import get_args

import pytest

from segue.sidecar.diagnosis.link_faults import FAULTS, FaultKind, FaultText, LinkCheckName


def test_every_fault_has_a_text_and_every_check_can_fail() -> None:
    assert set(FAULTS) == set(get_args(FaultKind))
    assert {text.check for text in FAULTS.values()} == set(get_args(LinkCheckName))


@pytest.mark.parametrize("text", FAULTS.values(), ids=FAULTS)
def test_a_cure_is_one_sentence_that_needs_no_values(text: FaultText) -> None:
    assert text.cure.endswith(".")
    assert ". " not in text.cure
    assert "{" not in text.cure
    assert text.finding.format_map({"gateway": "g", "hop": "h", "detail": "d"})
