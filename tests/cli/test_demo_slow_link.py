"""The second part of `segue demo` holds a conversation on an emulated link, and computes its time for others."""

from __future__ import annotations

import io

from segue.bench.links.profiles import LINKS
from segue.cli.demo_slow_link import COMPUTED, LINK, show_slow_link
from tests.terminals import terminal_of

#: A link that nobody has to wait for.
QUICK = LINKS["data-centre"]


async def test_both_ways_are_held_and_their_time_on_other_links_is_told() -> None:
    shown = io.StringIO()
    resent, continued = await show_slow_link(terminal_of(file=shown, width=100), QUICK)
    assert len(resent.turns) == len(continued.turns) == 8
    sizes = [turn.bytes_up_wire for turn in resent.turns]
    assert sizes == sorted(sizes)
    assert min(sizes) > 60_000
    assert max(turn.bytes_up_wire for turn in continued.turns[1:]) < 1000
    assert [turn.reply for turn in resent.turns] == [turn.reply for turn in continued.turns]
    text = " ".join(shown.getvalue().split())
    assert f"{resent.sent_bytes:,} {resent.time_s:.1f} {continued.sent_bytes:,} {continued.time_s:.1f}" in text
    assert "0.5 ms round trip and 1000 Mbit/s up" in text
    for name in COMPUTED:
        assert f"{resent.computed_s(LINKS[name]):.1f}" in text
    assert resent.computed_s(LINK) > 2 * continued.computed_s(LINK)
    assert 5 < resent.computed_s(LINK) < 10, "nobody wants to wait for a demo"
    far = LINKS["geo-in-flight"]
    assert resent.computed_s(far) < 1.2 * continued.computed_s(far), "where it saves no time, that is told"
