"""The table of the fault matrix covers each case once, and says nothing that contradicts itself."""

from __future__ import annotations

from itertools import product
from typing import get_args

from segue.client import errors
from tools.client_fault_table import ROWS, Fault, FaultCase, Outcome, expectations, fault_matrix


def test_each_case_has_one_row() -> None:
    expected = expectations()
    assert sum(len(list(row.cases())) for row in ROWS) == len(expected)
    for fault, store in product(get_args(Fault), (True, False)):
        assert FaultCase(fault=fault, transport="websocket", store=store, server="plain") in expected


def test_outcomes_are_errors_of_the_library() -> None:
    known = {name for name in get_args(Outcome) if name != "completed"}
    assert known == {row.outcome for row in ROWS} - {"completed"}
    assert all(issubclass(vars(errors)[name], errors.ClientError) for name in known)


def test_a_turn_that_completes_ran_once_and_nothing_runs_twice() -> None:
    for row in ROWS:
        assert row.runs == 1 if row.outcome == "completed" else row.runs <= 1
        assert row.why.endswith(".")


def test_the_documentation_shows_each_row() -> None:
    lines = fault_matrix().splitlines()
    assert len(lines) == len(ROWS) + 2
    assert lines[2].startswith("| cut before the create arrived | segue's gateway | any | any | `ask`, `repeat` |")
