"""Shares of the code are judged against what they should be at least."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import Coverage

from tools import check_coverage
from tools.check_coverage import Share, own, packages


def test_a_share_is_enough_from_its_limit_on() -> None:
    assert Share("http", 90.0, 90.0).enough
    assert not Share("http", 89.99, 90.0).enough


def test_every_package_is_judged() -> None:
    assert {"protocol", "gateway", "testing", "cli"} <= set(packages())


def test_only_what_its_own_tests_reach_counts_for_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "segue" / "http" / "sample.py"
    code.parent.mkdir(parents=True)
    code.write_text("def one():\n    return 1\ndef two():\n    return 2\n")
    data = Coverage(data_file=tmp_path / "data", config_file=False, include=[str(code)])
    # the lines that an import runs, then one function by its own tests, and one by others
    recorded = {"": {1, 3}, "tests/http/": {2}, "tests/sidecar/": {4}}
    stored = data.get_data()
    for context, lines in recorded.items():
        stored.set_context(context)
        stored.add_lines({str(code): lines})
    stored.write()
    monkeypatch.setattr(check_coverage, "DATA_FILE", tmp_path / "data")
    assert own("http").percent == 75
