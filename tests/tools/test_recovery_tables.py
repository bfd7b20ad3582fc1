"""The tables of the client library show every rule, every condition and every error."""

from __future__ import annotations

from segue.client.recovery import CONDITIONS, RULES
from tools.recovery_tables import client_errors, conditions, rules


def test_every_rule_has_a_row_in_its_order() -> None:
    rows = rules().splitlines()[2:]
    assert len(rows) == len(RULES)
    assert rows[0].startswith("| 1 | not sent | `upgrade_refused` | `no_websocket`, `may_use_http` |")
    assert all(rule.why in row for rule, row in zip(RULES, rows, strict=True))


def test_every_condition_and_every_error_is_explained() -> None:
    assert all(f"`{name}`" in conditions() for name in CONDITIONS)
    told = client_errors()
    assert "| `OutcomeUnknownError` |" in told
    assert "| `ClientError` |" not in told
    assert told.count("| yes |") == 5
