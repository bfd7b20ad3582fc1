"""The table of other servers says what was measured, what was not reached, and whose history was lost."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from segue.bench.reports.report import BenchReport, Figure
from tests.bench.reports.sample_reports import with_links
from tools.peer_tables import kept_words, peers_text


def _report() -> BenchReport:
    settings: dict[str, Any] = {
        "depths": [1, 100],
        "rounds": 3,
        "peers": [
            {"name": "segue", "version": "1.0", "keeps_in": "SQLite", "skipped": None},
            {"name": "other", "version": None, "keeps_in": "memory", "skipped": None},
            {"name": "absent", "version": None, "keeps_in": "memory", "skipped": "it is not installed"},
        ],
        "doors": [
            {"name": "segue", "door": "http", "kept": True, "seen": 5, "expected": 5, "problem": None},
            {"name": "other", "door": "websocket", "kept": False, "seen": 1, "expected": 5, "problem": "it stopped"},
        ],
        "compared": [],
    }
    figures = [
        Figure(name="CPU per turn: segue, http, depth 1", value=1.234, unit="ms", low=1.0, high=2.0),
        Figure(name="memory: segue", value=50.0, unit="MB", low=50.0, high=50.0),
    ]
    return replace(with_links(), settings=settings, figures=figures)


def test_figures_have_their_spread_and_gaps_say_so() -> None:
    text = peers_text(_report())
    assert "| segue | 1.0 | HTTP | whole | 1.23 (1 to 2) | not reached | not reached | not reached |" in text
    assert "| other | ? | WebSocket | **1 of 5** |" in text
    assert "| segue | SQLite | 50 |  |" in text
    assert "- other over WebSocket ended early: it stopped." in text
    assert "- absent was left out: it is not installed." in text
    assert "| absent |" not in text


@pytest.mark.parametrize(("kept", "words"), [(None, "not measured"), (True, "whole"), (False, "**2 of 9**")])
def test_what_was_kept(kept: bool | None, words: str) -> None:
    assert kept_words({"kept": kept, "seen": 2, "expected": 9}) == words
