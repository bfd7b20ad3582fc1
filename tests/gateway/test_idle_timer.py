"""When a gateway has been idle for too long."""

from __future__ import annotations

from segue.gateway.idle_timer import IdleTimer


def test_time_counts_from_the_first_look_at_which_it_was_idle() -> None:
    timer = IdleTimer(60.0)
    looks = [(0.0, True), (59.9, True), (60.0, False), (70.0, True), (129.9, True), (130.0, True)]
    assert [timer.is_over(now, idle=idle) for now, idle in looks] == [False, False, False, False, False, True]


def test_it_is_looked_often_enough() -> None:
    assert [IdleTimer(limit_s).interval_s for limit_s in (1.0, 1800.0)] == [0.1, 30.0]
