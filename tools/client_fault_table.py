"""What becomes of a turn of the client library when something goes wrong: the expectations of the fault matrix.

`tests/faults/test_client_faults.py` runs each case and holds the client to its row; `docs/reference/client-faults.md`
shows the rows. A row covers the cases that it names: each case has exactly one. Not here: the rules by which the client
decides (`segue.client.recovery`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Literal, get_args

import msgspec

from segue.client.recovery import Action
from tools.markdown import code, table

Fault = Literal[
    "cut before the create arrived",
    "cut before the first event",
    "cut in the middle of the stream",
    "cut in the terminal event",
    "cut between turns",
    "connection at its age limit",
    "restart between turns",
    "restart in the middle of the stream",
    "id evicted",
    "429 with Retry-After",
    "503 with Retry-After",
    "500 before the start",
    "response.failed",
    "slow link",
    "a web page instead of the upgrade",
]
Transport = Literal["http", "websocket", "auto"]
Server = Literal["gateway", "OpenAI", "plain", "runs on"]
#: How the turn ends: `completed`, or the name of the error that the caller gets.
Outcome = Literal["completed", "CreateRefusedError", "ResponseFailedError", "OutcomeUnknownError"]

_SHOWN: Mapping[Server, str] = MappingProxyType(
    {
        "gateway": "segue's gateway",
        "OpenAI": "OpenAI",
        "plain": "plain Open Responses",
        "runs on": "OpenAI, if it runs on without a client",
    }
)
_TRANSPORTS: tuple[Transport, ...] = ("http", "websocket")
_STORES = (True, False)
_SERVERS: tuple[Server, ...] = ("gateway", "OpenAI", "plain")


class FaultCase(msgspec.Struct, frozen=True, kw_only=True):
    """One case of the matrix: the second of three turns meets the fault."""

    fault: Fault
    transport: Transport
    store: bool
    server: Server


class FaultRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of some cases: what the client does, how the turn ends, how often the model runs, and why.

    `actions` are those of `segue.client.recovery`, up to the last, which gives up if the turn ends in an error that the
    client decided on.
    """

    fault: Fault
    transports: tuple[Transport, ...] = _TRANSPORTS
    stores: tuple[bool, ...] = _STORES
    servers: tuple[Server, ...] = _SERVERS
    actions: tuple[Action, ...] = ()
    outcome: Outcome = "completed"
    runs: int = 1
    why: str

    def cases(self) -> Iterator[FaultCase]:
        """Name the cases that the row covers."""
        for transport, store, server in product(self.transports, self.stores, self.servers):
            yield FaultCase(fault=self.fault, transport=transport, store=store, server=server)


_GATEWAY: tuple[Server, ...] = ("gateway",)
_OTHERS: tuple[Server, ...] = ("OpenAI", "plain")
_RUNS_ON: tuple[Server, ...] = ("runs on",)
_HTTP: tuple[Transport, ...] = ("http",)
_WEBSOCKET: tuple[Transport, ...] = ("websocket",)
_STORED, _UNSTORED = (True,), (False,)
_WAITS: tuple[Fault, ...] = ("429 with Retry-After", "503 with Retry-After")

_KEY = "The client sends the create again with the same key, and gets the turn that runs or ran."
_RESUME = "The client resumes the stream after the last event that it saw."
_NOT_KNOWN = "The server may have run the turn. A second create could be paid for twice, so you decide."
_DROPPED = "The server drops a turn whose client has gone. What it did is paid for."
_EPOCH = "Keys and events were in the gateway's memory, and its epoch tells that this memory is gone."
_BY_ID = "A new connection continues the stored response."
_HISTORY = "Over HTTP, an unstored session sends its history each time, and needs no id."
_REPLAY = "The server knows the response no more, so the client sends the history instead of the id."
_RETRIEVE = "The client retrieves the stored response, and gives you the rest of the stream from it."
_WAIT = "Nothing ran. The client waits as it was told, and sends again."

#: Every case of the matrix is in exactly one row.
ROWS: tuple[FaultRow, ...] = (
    FaultRow(fault="cut before the create arrived", servers=_GATEWAY, actions=("ask", "repeat"),
        why="The client cannot know that nothing arrived. It sends the create again with its key, and the turn runs.",
    ),
    FaultRow(fault="cut before the create arrived", servers=_OTHERS, outcome="OutcomeUnknownError", runs=0,
        why="The client cannot know that nothing arrived: a create that was lost on the way looks like one that ran.",
    ),
    FaultRow(fault="cut before the first event", servers=_GATEWAY, actions=("ask", "repeat"), why=_KEY),
    FaultRow(fault="cut before the first event", servers=_OTHERS, outcome="OutcomeUnknownError", why=_NOT_KNOWN),
    FaultRow(fault="cut in the middle of the stream", servers=_GATEWAY, actions=("ask", "resume"), why=_RESUME),
    FaultRow(fault="cut in the middle of the stream", servers=_OTHERS, stores=_STORED, actions=("retrieve",),
        outcome="OutcomeUnknownError", why=_DROPPED + " There is nothing to retrieve.",
    ),
    FaultRow(fault="cut in the middle of the stream", servers=_OTHERS, stores=_UNSTORED, outcome="OutcomeUnknownError",
        why=_DROPPED,
    ),
    FaultRow(fault="cut in the middle of the stream", servers=_RUNS_ON, stores=_STORED, actions=("retrieve",),
        why=_RETRIEVE,
    ),
    FaultRow(fault="cut in the terminal event", servers=_GATEWAY, actions=("ask", "resume"), why=_RESUME),
    FaultRow(fault="cut in the terminal event", servers=("OpenAI",), stores=_STORED, actions=("retrieve",),
        why=_RETRIEVE,
    ),
    FaultRow(fault="cut in the terminal event", servers=("OpenAI",), stores=_UNSTORED, outcome="OutcomeUnknownError",
        why="Without its end, nobody can tell whether the answer is complete, and it was not stored.",
    ),
    FaultRow(fault="cut in the terminal event", servers=("plain",), stores=_STORED, outcome="OutcomeUnknownError",
        actions=("retrieve",),
        why="Without its end, nobody can tell whether the answer is complete, and the server retrieves nothing.",
    ),
    FaultRow(fault="cut in the terminal event", servers=("plain",), stores=_UNSTORED, outcome="OutcomeUnknownError",
        why="Without its end, nobody can tell whether the answer is complete, and it was not stored.",
    ),
    FaultRow(fault="cut between turns", stores=_STORED, why=_BY_ID),
    FaultRow(fault="cut between turns", stores=_UNSTORED, transports=_WEBSOCKET,
        why="The client sees that the connection has gone before it sends. The response went with it, so it replays.",
    ),
    FaultRow(fault="cut between turns", stores=_UNSTORED, transports=_HTTP, why=_HISTORY),
    FaultRow(fault="connection at its age limit", servers=_GATEWAY, transports=_WEBSOCKET,
        why="The gateway says so between turns and closes. The client goes on over a new connection.",
    ),
    FaultRow(fault="connection at its age limit", servers=_OTHERS, transports=_WEBSOCKET, stores=_STORED,
        actions=("send",), why="The refusal says that nothing ran. " + _BY_ID,
    ),
    FaultRow(fault="connection at its age limit", servers=_OTHERS, transports=_WEBSOCKET, stores=_UNSTORED,
        actions=("send",),
        why="The refusal says that nothing ran. The response went with the connection, so the client replays.",
    ),
    FaultRow(fault="connection at its age limit", transports=_HTTP, why="HTTP has no age limit."),
    FaultRow(fault="restart between turns", stores=_STORED, why="The store has the response."),
    FaultRow(fault="restart between turns", stores=_UNSTORED, transports=_WEBSOCKET,
        why="The connection has gone, and the response with it, so the client replays.",
    ),
    FaultRow(fault="restart between turns", stores=_UNSTORED, transports=_HTTP, why=_HISTORY),
    FaultRow(fault="restart in the middle of the stream", servers=_GATEWAY, stores=_STORED,
        actions=("ask", "retrieve"), outcome="OutcomeUnknownError",
        why=_EPOCH + " The turn had not ended, so nothing was stored.",
    ),
    FaultRow(fault="restart in the middle of the stream", servers=_GATEWAY, stores=_UNSTORED, actions=("ask",),
        outcome="OutcomeUnknownError", why=_EPOCH,
    ),
    FaultRow(fault="restart in the middle of the stream", servers=_OTHERS, stores=_STORED, actions=("retrieve",),
        outcome="OutcomeUnknownError", why=_DROPPED + " There is nothing to retrieve.",
    ),
    FaultRow(fault="restart in the middle of the stream", servers=_OTHERS, stores=_UNSTORED,
        outcome="OutcomeUnknownError", why=_DROPPED,
    ),
    FaultRow(fault="id evicted", stores=_STORED, actions=("replay",), why=_REPLAY),
    FaultRow(fault="id evicted", stores=_UNSTORED, transports=_WEBSOCKET, actions=("replay",), why=_REPLAY),
    FaultRow(fault="id evicted", stores=_UNSTORED, transports=_HTTP, why=_HISTORY),
    *(
        row
        for fault in _WAITS
        for row in (
            FaultRow(fault=fault, servers=_OTHERS, actions=("send",), why=_WAIT),
            FaultRow(fault=fault, servers=_GATEWAY, stores=_STORED, actions=("send",), why=_WAIT),
            FaultRow(fault=fault, servers=_GATEWAY, stores=_UNSTORED, transports=_HTTP, actions=("send",), why=_WAIT),
            FaultRow(fault=fault, servers=_GATEWAY, stores=_UNSTORED, transports=_WEBSOCKET,
                actions=("send", "replay"),
                why=_WAIT + " By the rules of WebSocket mode, the refusal has cost the unstored parent.",
            ),
        )
    ),
    FaultRow(fault="500 before the start", outcome="OutcomeUnknownError", runs=0,
        why="A server that fails may have run the turn first. The client repeats nothing by itself.",
    ),
    FaultRow(fault="response.failed", outcome="ResponseFailedError",
        why="The turn ran and failed. The history is as it was before it, and you decide whether to pay for another.",
    ),
    FaultRow(fault="slow link", why="Slow is no fault: whatever comes is a sign of life."),
    FaultRow(fault="a web page instead of the upgrade", transports=("auto",), actions=("use_http",),
        why="What answers cannot do WebSockets. The client uses HTTP from then on.",
    ),
    FaultRow(fault="a web page instead of the upgrade", transports=_WEBSOCKET, outcome="CreateRefusedError", runs=0,
        why='`transport="websocket"` never falls back.',
    ),
    FaultRow(fault="a web page instead of the upgrade", transports=_HTTP, why="HTTP asks for no upgrade."),
)  # fmt: skip


def expectations() -> dict[FaultCase, FaultRow]:
    """Return the row of every case.

    Raises:
        AssertionError: a case has two rows, or none.
    """
    found: dict[FaultCase, FaultRow] = {}
    for row in ROWS:
        for case in row.cases():
            assert case not in found, f"two rows for {case}"
            found[case] = row
    for fault, transport, store, server in product(get_args(Fault), _TRANSPORTS, _STORES, _SERVERS):
        case = FaultCase(fault=fault, transport=transport, store=store, server=server)
        assert case in found, f"no row for {case}"
    return found


def fault_matrix() -> str:
    """Write the table of the documentation."""
    rows = []
    for row in ROWS:
        stored = "any" if row.stores == _STORES else code(str(row.stores[0]).lower())
        transports = "any" if row.transports == _TRANSPORTS else ", ".join(map(code, row.transports))
        servers = "any" if row.servers == _SERVERS else ", ".join(_SHOWN[server] for server in row.servers)
        outcome = "the turn completes" if row.outcome == "completed" else code(row.outcome)
        does = ", ".join(map(code, row.actions)) or "-"
        rows.append((row.fault, servers, transports, stored, does, outcome, str(row.runs), row.why))
    return table(("fault", "server", "`transport`", "`store`", "does", "what you get", "runs", "why"), rows)
