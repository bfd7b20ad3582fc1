"""The digest of a history is that of its items in their order, however they are cut into turns."""

from __future__ import annotations

from segue.dialects.prefix_digest import digest_of, digests_of
from segue.dialects.render_cache import RenderCache
from segue.history.chains import History, Turn
from tests.dialects.conversations import grow

ITEMS = [b'{"n":1}', b'{"n":2}', b'{"n":3}']


def chain(*items: bytes) -> Turn:
    turn = grow(None, [], [])
    for item in items:
        turn = grow(turn, [item], [item])
    return turn


def test_what_a_turn_answered_is_what_was_asked() -> None:
    cache = RenderCache(1 << 20)
    before = chain(*ITEMS)
    asked = digest_of(History(before, (b'{"m":"d"}',)), cache)
    assert digests_of(grow(before, [b'{"m":"d"}'], [b'{"m":"e"}']), cache).asked == asked
    assert digest_of(History(chain(*ITEMS), (b'{"m":"d"}',)), RenderCache(0)) == asked, "with or without a cache"


def test_another_item_or_another_order_is_another_history() -> None:
    cache = RenderCache(1 << 20)
    histories = [
        History(chain(*ITEMS), ()),
        History(chain(*reversed(ITEMS)), ()),
        History(chain(*ITEMS[:2]), ()),
        History(chain(*ITEMS[:2]), (b'{"m":"c"}', b'{"m":"c"}')),
        History(None, ()),
        History(None, (b'{"m":"a"}',)),
    ]
    assert len({digest_of(one, cache) for one in histories}) == len(histories)


def test_only_what_is_new_is_read() -> None:
    cache = RenderCache(1 << 20)
    turn = chain(*ITEMS)
    first = digests_of(turn, cache)
    assert turn.parent is not None
    turn.parent.input = (b'"changed, and nobody looks"',)
    assert digests_of(turn, cache) is first
    assert first.size_bytes == 64
