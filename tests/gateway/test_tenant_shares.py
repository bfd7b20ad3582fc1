"""What one tenant may have of the connections, and what is left to others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.gateway.tenant_shares import TenantShares


def begun(shares: TenantShares, tenant: str, *numbers: int) -> int:
    return sum(shares.begin((tenant, number), tenant) for number in numbers)


def test_who_is_alone_may_have_all() -> None:
    shares = TenantShares(8)
    assert begun(shares, "ann", *range(8)) == 8


def test_requests_that_never_end_leave_a_quarter_to_others() -> None:
    shares = TenantShares(16)
    assert begun(shares, "bob", 0) == 1
    shares.closed(("bob", 0))
    assert begun(shares, "ann", *range(20)) == 12
    assert begun(shares, "bob", *range(20)) == 5, "an even share, with one for who comes next"
    assert begun(shares, "cyd", *range(20)) == 4
    shares.closed(("ann", 0))
    assert begun(shares, "ann", 0) == 0, "it has more than the others"


def test_a_request_that_is_over_counts_no_more() -> None:
    shares = TenantShares(4)
    assert begun(shares, "bob", 0) + begun(shares, "ann", 0, 1) == 3
    assert begun(shares, "ann", 2) == 0, "three of four are under way"
    shares.rest(("ann", 0))
    assert shares.idle_beside(("ann", 0)) == 1
    assert begun(shares, "ann", 2) == 1
    shares.rest(("ann", 1))
    assert (shares.idle_beside(("ann", 0)), shares.idle_beside(("bob", 0))) == (2, 0)
    shares.wake(("ann", 0))
    shares.closed(("ann", 1))
    assert shares.idle_beside(("ann", 1)) == 0


def test_those_of_nobody_are_idle_together() -> None:
    shares = TenantShares(4)
    for number in range(3):
        shares.rest(number)
    assert (shares.idle_beside(0), shares.idle_beside(7)) == (3, 0)
    shares.wake(1)
    assert shares.idle_beside(0) == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.sampled_from(["begin", "rest", "close"]))))
def test_one_below_its_even_share_is_never_refused(moves: list[tuple[str, int, str]]) -> None:
    shares = TenantShares(8)
    at_work: set[tuple[str, int]] = set()
    for tenant, number, move in moves:
        connection = (tenant, number)
        if move == "begin" and connection not in at_work:
            shares.wake(connection)
            own = sum(owner == tenant for owner, _ in at_work)
            others = {owner for owner, _ in at_work} | {tenant}
            begun = shares.begin(connection, tenant)
            assert begun or own >= 8 // (len(others) + 1)
            at_work |= {connection} if begun else set()
        elif move == "rest" and connection in at_work:
            shares.rest(connection)
            at_work.discard(connection)
        elif move == "close":
            shares.closed(connection)
            at_work.discard(connection)
