"""The named links, as one table: every number of a link has its source.

A link whose numbers nobody published is not here. Rates and delays are those of one user. Every link has TCP's slow
start, and two round trips before the first byte of a connection: one for TCP, one for TLS 1.3 (RFC 8446, 2). Not here:
how a link is emulated (`segue.testing.pacing`), and how the table is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from segue.testing.pacing import LinkProfile

#: What published the numbers of a link.
Publication = Literal[
    "dean", "netforecast", "webpagetest", "lighthouse", "starlink-study", "ookla", "wireless-moves", "flight-pings"
]

PUBLICATIONS: Mapping[Publication, str] = {
    "dean": 'Jeff Dean (Google), "Numbers Everyone Should Know", in the talk "Software Engineering Advice from '
    'Building Large-Scale Distributed Systems": round trip within a data centre, and a network of 1 Gbit/s',
    "netforecast": "NetForecast, cited by Valour Consultancy: landline 25 ms and 0.05 % loss; in flight, mean of all "
    "technologies, 790 ms and up to 13 % loss. "
    "https://valourconsultancy.com/the-importance-of-low-latency-in-business-aviation-connectivity/",
    "webpagetest": "WebPageTest, connectivity profiles FIOS and 2G. "
    "https://github.com/WPO-Foundation/webpagetest/blob/master/www/settings/connectivity.ini.sample",
    "lighthouse": "Lighthouse, Slow 4G; the delay and the download rate are those of WebPageTest's 3G Fast. "
    "https://github.com/GoogleChrome/lighthouse/blob/main/docs/throttling.md",
    "starlink-study": 'Asad Ullah et al., "A First Look at Starlink In-Flight Performance", 2025: medians of one '
    "device. https://arxiv.org/abs/2508.09839",
    "ookla": "Ookla, Speedtest data of the first quarter of 2025: Starlink in flight, median 44 ms; British Airways, "
    "mostly geostationary, 22.57/3.9 Mbit/s and 827 ms. Reported by https://teslanorth.com/2025/06/30/"
    "starlink-driving-faster-in-flight-wi-fi and https://www.ukfcf.org.uk/"
    "ookla-study-reveals-in-flight-wifi-performance-of-major-airlines-ispreview-uk",
    "wireless-moves": "Martin Sauter, WirelessMoves: about 1 Mbit/s down and 0.1 Mbit/s up in flight in 2016, "
    "0.15-0.3 Mbit/s down in 2018. "
    "https://blog.wirelessmoves.com/2018/02/intercontinental-in-flight-internet-is-slowing-down.html",
    "flight-pings": "Pings from an A330 over Asia: means of 1.42 to 1.56 s, 0 to 16 % lost. "
    "https://www.fangfufu.co.uk/wiki/doku.php?id=public:characterising_the_latency_of_in-flight_internet",
}

#: The number under which a page or a listing cites a publication.
CITED_AS: Mapping[Publication, int] = {name: number for number, name in enumerate(PUBLICATIONS, start=1)}

_SETUP_RTTS = 2.0
_BITS = 8


class NamedLink(msgspec.Struct, frozen=True, kw_only=True):
    """One link: its numbers in the units of their sources, and what published them. `loss` is that of a segment."""

    name: str
    meaning: str
    rtt_ms: float
    down_mbit_s: float
    up_mbit_s: float
    loss: float = 0.0
    """0 if no loss was published, or if the source says there is none."""
    rtt_source: Publication
    rate_source: Publication
    loss_source: Publication | None = None

    @property
    def profile(self) -> LinkProfile:
        """The link as the emulation takes it."""
        return LinkProfile(
            rtt_s=self.rtt_ms / 1e3,
            up_bytes_s=self.up_mbit_s * 1e6 / _BITS,
            down_bytes_s=self.down_mbit_s * 1e6 / _BITS,
            loss=self.loss,
            setup_rtts=_SETUP_RTTS,
            slow_start=True,
        )

    @property
    def sources(self) -> tuple[Publication, ...]:
        """What published its numbers, each once: delay, rates, loss."""
        named = (self.rtt_source, self.rate_source, self.loss_source)
        return tuple(dict.fromkeys(one for one in named if one is not None))


#: From the fastest to the slowest.
LINKS: Mapping[str, NamedLink] = {
    link.name: link
    for link in (
        NamedLink(
            name="data-centre",
            meaning="two servers of one data centre",
            rtt_ms=0.5,
            down_mbit_s=1000,
            up_mbit_s=1000,
            rtt_source="dean",
            rate_source="dean",
        ),
        NamedLink(
            name="fibre",
            meaning="a landline to an online service",
            rtt_ms=25,
            down_mbit_s=20,
            up_mbit_s=5,
            loss=0.0005,
            rtt_source="netforecast",
            rate_source="webpagetest",
            loss_source="netforecast",
        ),
        NamedLink(
            name="leo-in-flight",
            meaning="an airliner with satellites in low orbit",
            rtt_ms=44,
            down_mbit_s=64,
            up_mbit_s=24,
            rtt_source="ookla",
            rate_source="starlink-study",
        ),
        NamedLink(
            name="slow-4g",
            meaning="the slowest quarter of 4G connections",
            rtt_ms=150,
            down_mbit_s=1.6,
            up_mbit_s=0.75,
            rtt_source="lighthouse",
            rate_source="lighthouse",
        ),
        NamedLink(
            name="geo-in-flight",
            meaning="an airliner with a geostationary satellite",
            rtt_ms=790,
            down_mbit_s=22.57,
            up_mbit_s=3.9,
            rtt_source="netforecast",
            rate_source="ookla",
        ),
        NamedLink(
            name="geo-in-flight-bad",
            meaning="the same, crowded and with the worst loss",
            rtt_ms=1500,
            down_mbit_s=1.0,
            up_mbit_s=0.1,
            loss=0.13,
            rtt_source="flight-pings",
            rate_source="wireless-moves",
            loss_source="netforecast",
        ),
        NamedLink(
            name="2g",
            meaning="a mobile phone without 3G",
            rtt_ms=800,
            down_mbit_s=0.28,
            up_mbit_s=0.256,
            rtt_source="webpagetest",
            rate_source="webpagetest",
        ),
    )
}
