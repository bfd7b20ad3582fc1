"""`segue bench links`: lists the links that benchmarks can run over, with the source of each number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.table import Table

from segue.bench.links.profiles import CITED_AS, LINKS, PUBLICATIONS, NamedLink, Publication
from segue.bench.links.transfer_time import transfer_time_s
from segue.cli.output_file import writing
from segue.terminal import print_table, print_text, terminal

_SHOWN_BYTES = (3_200, 32_000)  # the tenth turn of a session of 3.2 KB a turn: what is new, and everything


class LinkListing(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` writes."""

    links: list[NamedLink]
    publications: Mapping[Publication, str]


def run_bench_links(*, json_file: Path | None) -> int:
    """List the links, and write them as JSON if there is a file for it."""
    console = terminal()
    table = Table("link", box=None, pad_edge=False)
    for head in ("RTT ms", "Mbit/s\ndown", "\nup", "loss", *(f"{size / 1000:g} KB\nup, s" for size in _SHOWN_BYTES)):
        table.add_column(head, justify="right")
    table.add_column("sources")
    for link in LINKS.values():
        sources = "".join(f"[{CITED_AS[name]}]" for name in link.sources)
        loss = f"{100 * link.loss:g} %" if link.loss else ""
        cells = (f"{link.rtt_ms:g}", f"{link.down_mbit_s:g}", f"{link.up_mbit_s:g}", loss, *_times(link), sources)
        table.add_row(link.name, *cells)
    print_table(console, table)
    console.print(
        "\nTimes are those of an idle connection with TCP's slow start, without loss, until the last byte arrives.\n",
        style="dim",
        highlight=False,
    )
    for name, text in PUBLICATIONS.items():
        print_text(console, f"[{CITED_AS[name]}] {text}")
    if json_file is not None:
        listing = LinkListing(links=list(LINKS.values()), publications=PUBLICATIONS)
        with writing(json_file):
            json_file.write_bytes(msgspec.json.encode(listing))
        console.print(f"written to {json_file}", style="dim")
    return 0


def _times(link: NamedLink) -> list[str]:
    profile = link.profile
    assert profile.up_bytes_s is not None, "every named link has a rate"
    return [f"{transfer_time_s(profile, profile.up_bytes_s, size, age='idle'):.2g}" for size in _SHOWN_BYTES]
