"""What an engine counts."""

from __future__ import annotations

from segue.engine.counters import EngineCounters


def test_tokens_are_counted_by_kind() -> None:
    counters = EngineCounters(reused_tokens=1, restored_tokens=2, prefilled_tokens=3, output_tokens=4)
    assert [counters.tokens(kind) for kind in ("reused", "restored", "prefilled", "output")] == [1, 2, 3, 4]


def test_engines_do_not_share_their_counts() -> None:
    first, second = EngineCounters(), EngineCounters()
    first.sequences["host"] += 1
    assert second.sequences == {"context": 0, "host": 0, "disk": 0}
