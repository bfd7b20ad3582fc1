"""The log of the tunnel: whose exchange, how it ended, and what its link carried; never content."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from segue.gateway.principal import Principal
from segue.gateway.tunnel.exchange_log import EndTimes, ExchangeLog, ExchangeRecord, SessionExchangeLog
from segue.http.heads import Line, ReplyHead, RequestHead
from segue.testing.provider import Answer
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import encode_document
from tests.gateway.peer import Peer
from tests.gateway.tunnel.forwarding import GET, KEY, POST, post, running

SECRET = b"what nobody may read, " * 50
ALICE = Principal("alice", "laptop")


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def spoken(request: object) -> Answer:
    return Answer(lines=(Line(b"request-id", b"req_011CQ"), Line(b"X-Secret", b"hidden")), pieces=(SECRET,))


class Replies:
    """A session's end of the tunnel that still holds the replies of these exchanges."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = set(numbers)

    def holds(self, number: int) -> bool:
        return number in self.numbers


async def test_each_exchange_has_a_line(tmp_path: Path) -> None:
    """Also one that no route takes; and nothing of what was asked, said, or sent as a header line."""
    file = tmp_path / "exchanges"
    async with running(spoken, keys=[KEY], exchange_log=str(file)) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected({"Authorization": "Bearer sk-alice"}) as socket:
            await peer.request(socket, post(encode_document(SECRET)))
            await peer.request(socket, TunnelRequest(RequestHead(b"GET", b"/no/route?key=sk-1", ()), None))
    forwarded, refused = lines_of(file)
    expected = {
        "tenant": "alice",
        "key": "alice",
        "route": "/v1",
        "method": "POST",
        "status": 200,
        "outcome": "completed",
        "up_bytes": len(SECRET),
        "down_bytes": len(SECRET),
        "request_id": "req_011CQ",
    }
    assert expected.items() <= forwarded.items()
    assert 0 < forwarded["up_link_bytes"] < 200 > forwarded["down_link_bytes"] > 0
    assert forwarded["saved_bytes"] == 2 * len(SECRET) - forwarded["up_link_bytes"] - forwarded["down_link_bytes"]
    assert 0 < forwarded["first_byte_ms"] <= forwarded["total_ms"] <= forwarded["delivered_ms"]
    assert {"route": None, "status": 404, "outcome": "failed", "code": "route_not_found"}.items() <= refused.items()
    written = file.read_text()
    assert not any(word in written for word in ("nobody", "hidden", "beta", "sk-", "secret", "/no/"))


async def test_a_line_counts_the_links_that_it_took(tmp_path: Path) -> None:
    file, gate = tmp_path / "exchanges", asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"first ", b"second"), gates={1: gate})

    async with running(script, exchange_log=str(file)) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected():
            answer = peer.open(TunnelRequest(GET, None))
            await asyncio.wait_for(answer.started.wait(), 20)
        gate.set()
        async with peer.connected():
            await answer.whole()
    (line,) = lines_of(file)
    assert (line["outcome"], line["resumes"], line["down_bytes"]) == ("completed", 1, 12)


async def test_a_reply_that_nobody_fetched_has_a_line_when_the_gateway_ends(tmp_path: Path) -> None:
    file = tmp_path / "exchanges"

    def script(_: object) -> Answer:
        return Answer(before=asyncio.Event())

    async with running(script, exchange_log=str(file)) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await provider.seen(1)
            await gateway.tunnel.aclose()
    (line,) = lines_of(file)
    assert (line["outcome"], line["route"], line["status"]) == ("cancelled", "/v1", None)
    assert "delivered_ms" not in line


def test_a_line_waits_until_the_sidecar_has_the_reply(tmp_path: Path) -> None:
    file = tmp_path / "exchanges"
    log = ExchangeLog(str(file))
    session, end = SessionExchangeLog(log), Replies(1, 2, 3)
    for number in end.numbers:
        times = EndTimes(opened_at=10.0, ended_at=11.0, at=1_700_000_000.0)
        session.note_end(number, ExchangeRecord(POST, "http"), times, principal=ALICE, links_before=1)
    session.note_progress(end, now=12.0, links=1)
    waited = session.waits
    end.numbers -= {2}
    session.note_progress(end, now=13.5, links=3)
    session.give_up(links=1)
    assert (waited, session.waits) == (True, False)
    log.close()
    told = [(line["total_ms"], line.get("delivered_ms"), line.get("resumes", 0)) for line in lines_of(file)]
    assert told == [(1000.0, 3500.0, 2), (1000.0, None, 0), (1000.0, None, 0)]


@pytest.mark.parametrize(
    ("given", "logged"),
    [
        (b"req_011CQ", "req_011CQ"),
        (b"secret", None),  # the key of the request
        (b"a b", None),
        (b"x" * 101, None),
        (b"", None),
    ],
)
def test_a_request_id_is_a_short_word_and_no_key(given: bytes, logged: str | None) -> None:
    record = ExchangeRecord(POST, "http")
    record.note_reply(ReplyHead(200, b"OK", (Line(b"X-Request-Id", given),)), 1.0)
    assert record.request_id == logged


def test_without_a_place_it_is_off() -> None:
    log = ExchangeLog(None)
    assert not log.on
    assert not SessionExchangeLog(log).on
    log.close()
