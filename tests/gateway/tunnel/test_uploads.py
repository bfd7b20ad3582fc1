"""The budget of uploads: bounded memory, and never a deadlock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.gateway.tunnel.uploads import Uploads


class Sender:
    """An upload that counts how often its sender was let go on."""

    def __init__(self, tenant: str = "a") -> None:
        self.tenant = tenant
        self.credits = 0

    def credit(self) -> None:
        self.credits += 1


def test_within_the_budget_every_upload_goes_on() -> None:
    uploads, one, two = Uploads(100), Sender(), Sender()
    uploads.hold(one, 50)
    uploads.hold(two, 50)
    uploads.hold(one, 0)
    assert (one.credits, two.credits) == (2, 1)


def test_beyond_the_budget_only_the_oldest_goes_on() -> None:
    """It can end, and then frees what it held: there is no deadlock."""
    uploads, oldest, other = Uploads(100), Sender(), Sender()
    uploads.hold(oldest, 60)
    uploads.hold(other, 60)
    assert (oldest.credits, other.credits) == (1, 0)
    uploads.hold(oldest, 60)
    uploads.hold(oldest, 1000)
    uploads.hold(other, 1)
    assert (oldest.credits, other.credits) == (3, 0)


def test_an_upload_that_ends_lets_the_others_go_on() -> None:
    uploads, oldest, second, third = Uploads(100), Sender(), Sender(), Sender()
    uploads.hold(oldest, 90)
    uploads.hold(second, 80)
    uploads.hold(third, 80)
    uploads.release(oldest)
    assert (second.credits, third.credits) == (1, 0), "still over budget: the second is the oldest now"
    uploads.release(second)
    assert third.credits == 1


def test_an_upload_that_held_nothing_frees_nothing() -> None:
    uploads, one, other = Uploads(100), Sender(), Sender()
    uploads.hold(one, 200)
    uploads.release(other)
    assert (one.credits, other.credits) == (1, 0)
    uploads.release(one)
    uploads.release(one)
    uploads.hold(other, 100)
    assert other.credits == 1, "nothing was freed twice"


def test_uploads_that_never_end_stop_no_other_tenant() -> None:
    """A tenant below its share goes on with all it has, and one above with its oldest."""
    uploads, stuck = Uploads(100), [Sender("attacker") for _ in range(6)]
    for sender in stuck:
        uploads.hold(sender, 20)
    small, large, later = Sender("b"), Sender("b"), Sender("b")
    uploads.hold(small, 10)
    uploads.hold(large, 30)
    assert (small.credits, large.credits) == (1, 1)
    uploads.hold(large, 60)
    uploads.hold(small, 1)
    uploads.hold(later, 1)
    assert (small.credits, large.credits, later.credits) == (2, 1, 0), "above its share: the oldest alone"
    uploads.release(large)
    assert later.credits == 1


def test_memory_is_bounded_whatever_is_asked() -> None:
    """By the budget, what tenants below their share have, and one upload of each tenant."""
    uploads, most = Uploads(1000), 100
    for tenant in "abcde":
        for _ in range(50):
            sender = Sender(tenant)
            uploads.hold(sender, 1)
            while sender.credits and uploads.may_go_on(sender) and sender.credits < most:
                uploads.hold(sender, 1)
    assert uploads.size_bytes <= 1000 + 1000 + 5 * most + 5 * 50


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300)), min_size=1, max_size=8), st.data())
def test_all_uploads_end_whatever_they_send(sizes: list[tuple[str, int]], data: st.DataObject) -> None:
    """As long as each one sends what it was credited for, one piece per credit."""
    uploads = Uploads(250)
    left = {Sender(tenant): size for tenant, size in sizes}
    senders = list(left)
    may_send = dict.fromkeys(senders, 1)  # the first window needs no credit
    while left:
        ready = [sender for sender in left if may_send[sender]]
        assert ready, "everyone waits for everyone"
        sender = data.draw(st.sampled_from(ready))
        piece = min(left[sender], 100)
        before = {one: one.credits for one in left}
        may_send[sender] -= 1
        left[sender] -= piece
        uploads.hold(sender, piece)
        if not left[sender]:
            del left[sender]
            uploads.release(sender)
        for one in left:
            may_send[one] += one.credits > before[one]
