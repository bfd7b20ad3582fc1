"""`segue bench links` lists every link with its sources, also where a terminal is narrow, and writes JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

from segue.bench.links.profiles import LINKS, PUBLICATIONS
from tests.cli.conftest import Command


def test_lists_every_link_with_its_sources(command: Command) -> None:
    status, printed, told = command("bench", "links")
    assert (status, told) == (0, "")
    table, _, sources = printed.partition("Times are")
    for link in LINKS.values():
        (line,) = (line for line in table.splitlines() if line.startswith(f"{link.name} "))
        assert f" {link.rtt_ms:g} " in line
        cited = [list(PUBLICATIONS)[int(number) - 1] for number in re.findall(r"\[(\d)\]", line)]
        assert cited == list(link.sources)
    assert all(text in " ".join(sources.split()) for text in PUBLICATIONS.values())
    assert all(len(line) <= 80 for line in table.splitlines())


def test_says_how_long_bytes_take(command: Command) -> None:
    _, printed, _ = command("bench", "links")
    (line,) = (line for line in printed.splitlines() if line.startswith("slow-4g"))
    # 3.2 KB at 93.75 KB/s and half a round trip; 32 KB, and a pause of 1.46 KB/s + 150 ms - 14.6 KB/s
    assert "0.11" in line
    assert "0.43" in line


def test_writes_the_same_as_json(command: Command, tmp_path: Path) -> None:
    status, printed, _ = command("bench", "links", "--json", "links.json")
    assert status == 0
    assert printed.endswith("written to links.json\n")
    written = json.loads((tmp_path / "links.json").read_bytes())
    assert [link["name"] for link in written["links"]] == list(LINKS)
    assert written["publications"] == PUBLICATIONS
    assert written["links"][-1] == {
        "name": "2g",
        "meaning": "a mobile phone without 3G",
        "rtt_ms": 800,
        "down_mbit_s": 0.28,
        "up_mbit_s": 0.256,
        "loss": 0.0,
        "rtt_source": "webpagetest",
        "rate_source": "webpagetest",
        "loss_source": None,
    }
