"""What a tenant may measure is bounded, and is its own."""

from __future__ import annotations

from segue.gateway.tunnel.transfer_allowance import REQUEST_BYTES, WINDOW_BYTES, WINDOW_S, TransferAllowance


def test_a_window_holds_so_many_bytes_and_the_next_one_begins_after_it() -> None:
    allowance = TransferAllowance()
    assert allowance.take("a", WINDOW_BYTES, 100.0) == 0
    assert allowance.take("a", 1, 103.0) == WINDOW_S - 3
    assert allowance.take("b", WINDOW_BYTES, 103.0) == 0, "another tenant has its own"
    assert allowance.take("a", WINDOW_BYTES, 100.0 + WINDOW_S) == 0


def test_an_empty_request_is_not_free() -> None:
    allowance = TransferAllowance()
    taken = [allowance.take("a", 0, 0.0) for _ in range(WINDOW_BYTES // REQUEST_BYTES + 1)]
    assert taken == [0.0] * (len(taken) - 1) + [WINDOW_S]
