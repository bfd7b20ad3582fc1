"""How little runs before a first event goes on, at each end of the tunnel: what runs once in a while costs by its size.

An event that has come leaves in the call that reads it: no task has to be woken. The bounds are calls of functions of
ours between the two, for a head and an event that come together. They are what there is, and a few more
(docs/decisions/0038).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from segue.bench.arms.ends import GatewaySpec, SidecarSpec, run_gateway, run_sidecar
from segue.egress import asyncio_network
from segue.gateway.tunnel import exchange
from segue.http.heads import Line
from segue.packet_writer import PacketSocket
from segue.sidecar import request_handler
from segue.sidecar.agent_transport import AgentTransport
from segue.sidecar.packet_protocol import PacketProtocol
from segue.testing.provider import Answer, ReceivedRequest, provided

GATEWAY_CALLS = 78
SIDECAR_CALLS = 58
EVENT = b'event: message_start\ndata: {"type":"message_start"}\n\n'
#: How many lines a head has, and how many of them are new in each.
LINES, NEW_LINES = 8, 4
REQUEST = b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}"


class Calls:
    """Counts the calls of Python between two of them: one reads what comes, and the other writes it on within it."""

    def __init__(self) -> None:
        self.found: list[str] | None = None
        self._running: list[str] | None = None

    def count_within(self, read: Callable[..., None], is_wanted: Callable[[bytes], bool]) -> Callable[..., None]:
        """Return a method that counts while it runs, up to the write."""

        def counted(protocol: object, data: bytes) -> None:
            if is_wanted(data):
                self._running = []
                sys.setprofile(self._note)
            try:
                read(protocol, data)
            finally:
                sys.setprofile(None)
                self._running = None

        return counted

    def end_with(self, write: Callable[..., None]) -> Callable[..., None]:
        """Return a method that ends the count."""

        def ended(socket: object, data: bytes) -> None:
            if self._running is not None:
                sys.setprofile(None)
                self.found, self._running = self._running, None
            write(socket, data)

        return ended

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and self._running is not None and module.startswith("segue.") and "testing" not in module:
            self._running.append(frame.f_code.co_qualname)


async def test_a_first_event_leaves_in_the_call_that_reads_it_and_after_few_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_gateway, at_sidecar = Calls(), Calls()
    wire = asyncio_network._Wire  # noqa: SLF001 - where what a provider sends comes in
    from_provider = at_gateway.count_within(wire.data_received, lambda data: data.startswith(b"HTTP/1.1 200"))
    from_gateway = at_sidecar.count_within(PacketProtocol.data_received, lambda _: at_gateway.found is not None)
    monkeypatch.setattr(wire, "data_received", from_provider)
    monkeypatch.setattr(PacketSocket, "write", at_gateway.end_with(PacketSocket.write))
    monkeypatch.setattr(PacketProtocol, "data_received", from_gateway)
    monkeypatch.setattr(AgentTransport, "write_now", at_sidecar.end_with(AgentTransport.write_now))
    for module in (exchange, request_handler):
        monkeypatch.setattr(module, "_PREPARE_AFTER_S", 0.0)  # and not while the event waits
    thought = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        values = (b"%d" % last if number < NEW_LINES else b"same" for number in range(LINES))
        lines = tuple(Line(b"X-Line-%d" % number, value) for number, value in enumerate(values))
        return Answer(lines=lines, pieces=(EVENT,), before=thought, gates={1: asyncio.Event()} if last else {})

    async with (
        provided(script) as provider,
        run_gateway(GatewaySpec(provider.url)) as gateway,
        run_sidecar(SidecarSpec("http://{}:{}".format(*gateway))) as sidecar,
    ):
        reader, writer = await asyncio.open_connection(*sidecar)
        try:
            for last in (False, True):
                thought.clear()
                at_gateway.found = at_sidecar.found = None
                writer.write(REQUEST)
                await provider.seen(len(provider.requests) + 1)
                thought.set()
                await reader.readuntil(EVENT)
                if not last:
                    await reader.readuntil(b"0\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
    for found, bound in ((at_gateway.found, GATEWAY_CALLS), (at_sidecar.found, SIDECAR_CALLS)):
        assert found is not None, "it was written later, by a task"
        assert bound / 2 < len(found) <= bound, found
