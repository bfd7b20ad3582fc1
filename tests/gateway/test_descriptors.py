"""How many descriptors the process may have."""

from __future__ import annotations

import resource

import pytest

from segue.gateway.descriptors import descriptor_limit, raise_descriptor_limit


class Limits:
    def __init__(self, soft: int, hard: int, *, fixed: bool = False) -> None:
        self.now = (soft, hard)
        self._fixed = fixed

    def get(self, _: int) -> tuple[int, int]:
        return self.now

    def set(self, _: int, limits: tuple[int, int]) -> None:
        if self._fixed:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits


def use(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)


def test_the_limit_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    use(Limits(1024, 4096), monkeypatch)
    assert descriptor_limit() == 1024
    assert raise_descriptor_limit() == (1024, 4096)
    assert descriptor_limit() == 4096


def test_where_it_cannot_be_raised_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    use(Limits(256, 4096, fixed=True), monkeypatch)
    assert raise_descriptor_limit() == (256, 256)


def test_there_may_be_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    use(Limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY), monkeypatch)
    assert descriptor_limit() is None
