"""Client and servers get a core each where there are two, and the client has its cores back at the end."""

from __future__ import annotations

import os
import sys

import pytest

from segue.bench.meters.cpu_affinity import Cores, allow_open_files, place


class Scheduler:
    """Stands in for the system's: one process and its cores."""

    def __init__(self, *allowed: int) -> None:
        self.cores = set(allowed)

    def get(self, pid: int) -> set[int]:
        assert pid == 0
        return set(self.cores)

    def set(self, pid: int, cores: set[int]) -> None:
        assert pid == 0
        self.cores = set(cores)


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    made = Scheduler(3, 1, 7)
    monkeypatch.setattr(os, "sched_getaffinity", made.get, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", made.set, raising=False)
    return made


def test_the_client_is_pinned_around_the_block(scheduler: Scheduler) -> None:
    def fail(cores: Cores) -> None:
        raise RuntimeError(f"{cores} {scheduler.cores}")

    with pytest.raises(RuntimeError, match=r"Cores\(server=1, client=3\) \{3\}"), place() as cores:
        fail(cores)
    assert scheduler.cores == {1, 3, 7}


def test_one_core_pins_nothing(scheduler: Scheduler) -> None:
    scheduler.cores = {2}
    with place() as cores:
        assert (cores, scheduler.cores) == (Cores(None, None), {2})


def test_a_system_that_cannot_pin_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    with place() as cores:
        assert cores == Cores(None, None)


def test_files_may_be_opened_up_to_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda what, both: limits.append((what, both)))
    allow_open_files()
    assert limits == [(resource.RLIMIT_NOFILE, (4096, 4096))]


def test_a_system_without_such_limits_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    allow_open_files()
