"""The provider of all nodes: it tells the ledger what it receives, and answers a turn with its marker, piece by piece.

It answers upstream requests of the gateways (the Responses API), and what agents send through their sidecars. Not
here: judging what it receives (`ledger`).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable

from segue.http.heads import Line, values
from segue.testing.provider import Answer, ReceivedRequest
from segue.testing.response_events import Json, ResponseIdentity, response_events, said
from tests.faults.cluster.ledger import Ledger, answer_to

#: Where requests of agents arrive; all others are turns.
AGENTS = "/agents"
#: In which line SDKs say how often they have sent a request before.
RETRIES = b"x-stainless-retry-count"
#: The longest pause between two pieces of an answer: kills are to come in the middle of some turns, and beside others.
_LONGEST_PAUSE_S = 0.03
_BEGUN_AT = 1_700_000_000
_SSE = (Line(b"Content-Type", b"text/event-stream"),)


class LedgerProvider:
    """A script for a `ScriptedProvider`. Pauses follow from the seed."""

    def __init__(self, ledger: Ledger, seed: int, *, limited: str) -> None:
        self._ledger = ledger
        self._limited = limited
        self._random = random.Random(seed)
        self._held: dict[str, asyncio.Event] = {}
        self.gate: asyncio.Event | None = None
        """In the middle of each answer it waits for this."""
        self.on_limited: Callable[[int, int | None], object] = lambda number, sent_in: None
        """Is called with the number of each request of the limited tenant, and when it was sent."""

    def hold(self, marker: str) -> asyncio.Event:
        """Wait in the middle of the answer to one turn for this event."""
        return self._held.setdefault(marker, asyncio.Event())

    def answer(self, request: ReceivedRequest) -> Answer:
        """Note a request, and answer it."""
        body = json.loads(request.body or b"{}")
        gate = self.gate
        if request.target.startswith(AGENTS.encode()):
            marker, attempt = str(body["marker"]), int(b"".join(values(request.lines, RETRIES)))
            exchange = self._ledger.forward(marker, attempt)
            if exchange is not None and exchange.tenant == self._limited:
                self.on_limited(request.number, exchange.sent_in[attempt])
            pieces = pieces_of(marker, attempt)
        else:
            texts = [text_of_input(item) for item in body["input"]]
            turn = self._ledger.receive(texts)
            if turn is not None:
                gate = self._held.get(turn.marker, gate)
                if turn.tenant == self._limited:
                    self.on_limited(request.number, turn.sent_in)
            pieces = _events_of(body, texts[-1], request.number)
        pause_s = self._random.choice((0.0, 0.0, self._random.uniform(0.0, _LONGEST_PAUSE_S)))
        gates = {} if gate is None else {len(pieces) // 2: gate}
        return Answer(lines=_SSE, pieces=tuple(pieces), pace_s=pause_s, delay_s=pause_s, gates=gates)


def pieces_of(marker: str, attempt: int) -> list[bytes]:
    """Return the pieces of the answer to an attempt of an agent's request."""
    return [b"data: %d %s (%d)\n\n" % (number, marker.encode(), attempt) for number in range(6)]


def text_of_input(item: Json) -> str:
    """Return what an item of a request says."""
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _events_of(create: Json, marker: str, number: int) -> list[bytes]:
    identity = ResponseIdentity(create=create, response_id=f"resp_{number:08}", created_at=_BEGUN_AT)
    output = [{**said(answer_to(marker)), "id": f"msg_{number:08}"}]
    events = response_events(identity, output)
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
