"""Every named link has the numbers that its sources published."""

from __future__ import annotations

import pytest

from segue.bench.links.profiles import LINKS, PUBLICATIONS
from segue.testing.pacing import LinkProfile


def test_numbers_are_those_of_the_sources() -> None:
    found = {link.name: (link.rtt_ms, link.down_mbit_s, link.up_mbit_s, link.loss) for link in LINKS.values()}
    assert found == {
        "data-centre": (0.5, 1000, 1000, 0),
        "fibre": (25, 20, 5, 0.0005),
        "leo-in-flight": (44, 64, 24, 0),
        "slow-4g": (150, 1.6, 0.75, 0),
        "geo-in-flight": (790, 22.57, 3.9, 0),
        "geo-in-flight-bad": (1500, 1.0, 0.1, 0.13),
        "2g": (800, 0.28, 0.256, 0),
    }


def test_the_emulation_gets_bytes_and_seconds() -> None:
    assert LINKS["slow-4g"].profile == LinkProfile(
        rtt_s=0.15, up_bytes_s=93_750, down_bytes_s=200_000, setup_rtts=2, slow_start=True
    )
    assert LINKS["geo-in-flight-bad"].profile.loss == 0.13


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_a_link_names_its_sources_and_a_loss_has_one(link: object) -> None:
    (named,) = (one for one in LINKS.values() if one is link)
    assert LINKS[named.name] is named
    assert set(named.sources) <= set(PUBLICATIONS)
    assert (named.loss > 0) == (named.loss_source is not None)


def test_each_publication_is_cited() -> None:
    assert {source for link in LINKS.values() for source in link.sources} == set(PUBLICATIONS)
    assert LINKS["fibre"].sources == ("netforecast", "webpagetest")
