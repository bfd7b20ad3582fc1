"""The budget of uploads: bounded memory, and never a deadlock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.gateway.tunnel.uploads import Uploads


class Sender:
    """An upload that counts how often its sender was let go on."""

    def __init__(self) -> None:
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


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.data())
def test_all_uploads_end_whatever_they_send(sizes: list[int], data: st.DataObject) -> None:
    """As long as each one sends what it was credited for, one piece per credit."""
    uploads = Uploads(250)
    senders = [Sender() for _ in sizes]
    left = dict(zip(senders, sizes, strict=True))
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
