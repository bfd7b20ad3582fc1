"""Limits over several gateways: what one takes counts at the others, and each counts alone while nothing is shared."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from segue.config import Config
from segue.gateway.principal import Principal
from segue.gateway.quotas.quotas import Quotas
from segue.gateway.quotas.shared_windows import SharedWindows
from segue.protocol.problems import Refused
from segue.stores.live.interface import LiveUnavailable, TakenUnits

ALICE = Principal("alice", "k")
TABLES = {
    "limits": {"requests_per_minute": 60, "tokens_per_minute": 6000},
    "key": [{"name": "k", "tenant": "alice", "sha256": "0" * 64, "limits": {"requests_per_minute": 30}}],
}


class _AllWindows:
    """What several gateways share, in memory; time stands still."""

    def __init__(self) -> None:
        self.full_in_s: dict[tuple[str, str], float] = {}
        self.away = False

    async def take(self, tenant: str, taken: Sequence[TakenUnits]) -> Sequence[float]:
        if self.away:
            raise LiveUnavailable
        for one in taken:
            before = self.full_in_s.get((tenant, one.window), 0.0)
            self.full_in_s[tenant, one.window] = max(before, one.full_in_s) + one.units * 60 / one.per_minute
        return [self.full_in_s[tenant, one.window] for one in taken]


class _Gateway:
    def __init__(self, windows: _AllWindows) -> None:
        self.quotas = Quotas(msgspec.convert(TABLES, Config))
        self.shared = SharedWindows(self.quotas, windows, lambda: 1000.0)

    def left(self, key: str | None = "k") -> int:
        scope = next(scope for tenant, name, scope in self.quotas.counted() if name == key)
        return scope.windows["requests"].remaining(1000.0)

    def is_alone(self) -> bool:
        return self.shared.alone

    async def turns(self, count: int) -> None:
        for _ in range(count):
            self.quotas.end(self.quotas.begin(ALICE, 1000.0), None, 1000.0)
        await self.shared.compare()


async def test_what_one_gateway_takes_counts_at_the_others() -> None:
    windows = _AllWindows()
    one, two = _Gateway(windows), _Gateway(windows)
    await one.turns(20)
    await two.turns(1)
    assert (two.left(), two.left(None)) == (9, 39)
    await two.turns(9)
    with pytest.raises(Refused):
        await two.turns(1)
    await one.shared.compare()
    assert one.left() == 10, "it has taken nothing since, and so has not asked"


async def test_a_gateway_that_nobody_can_be_compared_with_counts_alone_and_goes_on_afterwards() -> None:
    windows = _AllWindows()
    one, two = _Gateway(windows), _Gateway(windows)
    windows.away = True
    await one.turns(25)
    assert one.is_alone()
    assert one.left() == 5, "its own limit holds"
    windows.away = False
    await one.shared.compare()
    assert not one.is_alone()
    assert one.left() == 5, "what it has taken alone counts once"
    await two.turns(1)
    assert two.left() == 4


async def test_what_is_taken_during_a_comparison_is_not_lost() -> None:
    windows = _AllWindows()
    one = _Gateway(windows)

    class _Interrupted(_AllWindows):
        async def take(self, tenant: str, taken: Sequence[TakenUnits]) -> Sequence[float]:
            one.quotas.begin(ALICE, 1000.0)
            return await windows.take(tenant, taken)

    interrupted = SharedWindows(one.quotas, _Interrupted(), lambda: 1000.0)
    one.quotas.begin(ALICE, 1000.0)
    await interrupted.compare()
    assert one.left() == 28
    await one.shared.compare()
    assert one.left() == 28
    assert windows.full_in_s["alice", "key:k:requests"] == pytest.approx(4.0)
