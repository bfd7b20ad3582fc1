"""The provider of all nodes: it tells the ledger what it receives, and answers a turn with its marker, piece by piece.

It answers upstream requests of the gateways (the Responses API), and what agents send through their sidecars. Not
here: judging what it receives (`ledger`).
"""

from __future__ import annotations

import asyncio
import json
import random

from segue.http.heads import Line
from segue.testing.provider import Answer, ReceivedRequest
from segue.testing.response_events import Json, ResponseIdentity, response_events, said
from tests.faults.cluster.ledger import Ledger, answer_to

#: Where requests of agents arrive; all others are turns.
AGENTS = "/agents"
#: The longest pause between two pieces of an answer: kills are to come in the middle of some turns, and beside others.
_LONGEST_PAUSE_S = 0.03
_BEGUN_AT = 1_700_000_000
_SSE = (Line(b"Content-Type", b"text/event-stream"),)


class LedgerProvider:
    """A script for a `ScriptedProvider`. Pauses follow from the seed."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self._ledger = ledger
        self._random = random.Random(seed)
        self.gate: asyncio.Event | None = None
        """In the middle of each answer it waits for this."""

    def answer(self, request: ReceivedRequest) -> Answer:
        """Note a request, and answer it."""
        body = json.loads(request.body or b"{}")
        if request.target.startswith(AGENTS.encode()):
            marker = str(body["marker"])
            self._ledger.forward(marker)
            pieces = pieces_of(marker)
        else:
            texts = [text_of_input(item) for item in body["input"]]
            self._ledger.receive(texts)
            pieces = _events_of(body, texts[-1], request.number)
        pause_s = self._random.choice((0.0, 0.0, self._random.uniform(0.0, _LONGEST_PAUSE_S)))
        gates = {} if self.gate is None else {len(pieces) // 2: self.gate}
        return Answer(lines=_SSE, pieces=tuple(pieces), pace_s=pause_s, delay_s=pause_s, gates=gates)


def pieces_of(marker: str) -> list[bytes]:
    """Return the pieces of the answer to an agent's request."""
    return [b"data: %d %s\n\n" % (number, marker.encode()) for number in range(6)]


def text_of_input(item: Json) -> str:
    """Return what an item of a request says."""
    content = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _events_of(create: Json, marker: str, number: int) -> list[bytes]:
    identity = ResponseIdentity(create=create, response_id=f"resp_{number:08}", created_at=_BEGUN_AT)
    output = [{**said(answer_to(marker)), "id": f"msg_{number:08}"}]
    events = response_events(identity, output)
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
