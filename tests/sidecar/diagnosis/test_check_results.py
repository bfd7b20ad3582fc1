"""Results of checks: short lines that no peer can write a terminal's commands into."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.sidecar.diagnosis.check_results import DiagnosticResult, failed, is_well, one_line, passed, skipped


def test_a_result_has_a_status_and_one_that_failed_is_not_well() -> None:
    results = [passed("a", "fine"), skipped("b", "not tried"), passed("c", "fine", "soon")]
    assert results[2] == DiagnosticResult(name="c", status="passed", finding="fine", cure="soon")
    assert is_well(results)
    assert not is_well([*results, failed("d", "wrong", "do")])


@pytest.mark.parametrize("make", [passed, failed, skipped])
def test_what_a_peer_has_sent_controls_no_terminal(make: Callable[[str, str, str], DiagnosticResult]) -> None:
    result = make("a", "\x1b[2Jgone\r\nx\u202e", "\x07now")
    assert (result.finding, result.cure) == (" [2Jgone  x ", " now")


@given(st.text(max_size=50))
def test_a_line_is_printable_and_short(text: str) -> None:
    line = one_line(text, 10)
    assert len(line) <= 10
    assert line.isprintable()
    assert len(text) > 10 or len(line) == len(text)
