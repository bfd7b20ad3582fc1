"""An exchange begins with nothing but its time."""

from __future__ import annotations

from segue.bench.meters.observed_exchange import ObservedExchange


def test_nothing_has_come_yet() -> None:
    exchange = ObservedExchange(begun_at=1.0)
    sizes = [getattr(exchange, name) for name in ObservedExchange.__struct_fields__ if name.endswith("_bytes")]
    assert (sizes, exchange.status, exchange.first_at, exchange.whole) == ([0, 0, 0, 0], None, None, False)
