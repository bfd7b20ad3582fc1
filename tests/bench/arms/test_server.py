"""Both servers of the gateway benchmark send the same events, and their process answers what it is asked."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec
import pytest

from segue.bench.arms import server
from segue.bench.arms.providers import answering
from segue.bench.arms.server import (
    BARE_HISTORY,
    BURST,
    CONTINUED,
    FRAMING_EVENTS,
    PACED,
    PROVIDED,
    STAMPED,
    TICKED,
    ProcessUsage,
    Ready,
    ServerSpec,
    build_router,
    loop_factory,
    main,
    serve,
    serve_bare,
    serve_gateway,
)
from segue.bench.gateway import make_create
from segue.bench.meters.websocket_client import MeasuringSocket, TimedReply, TurnRefusedError, connect
from tests.bench.arms.processes import with_stdin

SPEC = ServerSpec(kind="gateway", deltas=12, delta_bytes=24, stamps=4, pace_s=0.001)


def kinds_of(done: TimedReply) -> list[str]:
    return [json.loads(event)["type"] for event in done.events]


@asynccontextmanager
async def both() -> AsyncIterator[list[MeasuringSocket]]:
    """A connection to the gateway, and one to the bare server."""
    async with serve_gateway(SPEC) as gateway, serve_bare(SPEC) as bare:
        sockets = [await connect(*gateway), await connect(*bare)]
        yield sockets
        for socket in sockets:
            socket.close()


async def test_both_servers_send_the_same_events() -> None:
    async with both() as sockets:
        for model in (BURST, TICKED, PACED):
            ours, theirs = [await socket.turn(make_create(model, "Hello.", None)) for socket in sockets]
            assert kinds_of(ours) == kinds_of(theirs)
            assert len(ours.events) == SPEC.deltas + FRAMING_EVENTS
            assert len(ours.events[5]) == pytest.approx(len(theirs.events[5]), abs=2)  # ids and numbers differ


async def test_the_deltas_of_the_stamped_model_are_the_times_they_were_made_at() -> None:
    async with both() as sockets:
        for socket in sockets:
            stamped = await socket.turn(make_create(STAMPED, "Hello.", None))
            assert len(stamped.latencies_ns()) == SPEC.stamps
            assert min(stamped.latencies_ns()) > 0


async def test_the_gateway_continues_and_refuses_what_it_does_not_know() -> None:
    async with serve_gateway(SPEC) as address:
        socket = await connect(*address)
        first = await socket.turn(make_create(BURST, "Hello.", None))
        second = await socket.turn(make_create(BURST, "Go on.", first.response_id))
        assert json.loads(second.events[-1])["response"]["previous_response_id"] == first.response_id
        with pytest.raises(TurnRefusedError, match="previous_response_not_found"):
            await socket.turn(make_create(BURST, "Hello.", "resp_unknown"))
        socket.close()


async def test_a_provider_gets_the_whole_history_in_every_dialect_and_untranslated() -> None:
    async with answering("a reply") as provider:
        spec = msgspec.structs.replace(SPEC, provider=provider.url)
        assert set(build_router(spec).models()) >= {BURST, TICKED, PACED, STAMPED, BARE_HISTORY, *PROVIDED}
        async with serve_gateway(spec) as address:
            socket = await connect(*address)
            for model in (*PROVIDED, BARE_HISTORY):
                before, sizes = None, []
                for _ in range(3):
                    received = provider.received_bytes
                    done = await socket.turn(make_create(model, "x" * 500, before))
                    before = done.response_id
                    sizes.append(provider.received_bytes - received)
                assert [later - earlier > 500 for earlier, later in pairwise(sizes)] == [True, True]
            socket.close()
    assert provider.requests == 3 * len((*PROVIDED, BARE_HISTORY))


async def test_a_provider_that_holds_what_it_was_sent_gets_what_is_new() -> None:
    async with answering("a reply") as provider:
        spec = msgspec.structs.replace(SPEC, provider=provider.url, socket_provider=provider.socket_url)
        async with serve_gateway(spec) as address:
            for model in CONTINUED:
                socket = await connect(*address)
                before, sizes = None, []
                for _ in range(4):
                    received = provider.received_bytes
                    done = await socket.turn(make_create(model, "x" * 500, before))
                    before = done.response_id
                    sizes.append(provider.received_bytes - received)
                socket.close()
                first, _, *later = sizes  # the second asks whether the provider holds anything
                assert all(size < first + 200 for size in later)


# ------------------------------------------------------------------------------------------------------- the process


def answers(printed: bytes) -> tuple[Ready, list[ProcessUsage]]:
    ready, *used = printed.splitlines()
    return msgspec.json.decode(ready, type=Ready), [msgspec.json.decode(line, type=ProcessUsage) for line in used]


def test_it_says_where_it_listens_and_what_it_has_used(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = with_stdin(monkeypatch, b"usage\nsettle\n")

    @asynccontextmanager
    async def nothing() -> AsyncIterator[tuple[str, int]]:
        yield "127.0.0.1", 4747

    asyncio.run(serve(nothing()))
    ready, (first, second) = answers(printed.getvalue())
    assert ready == Ready("127.0.0.1", 4747, "asyncio")
    assert 0 < first.cpu_ns <= second.cpu_ns
    if sys.platform == "linux":
        assert first.rss_bytes
        assert first.rss_bytes > 1_000_000


@pytest.mark.parametrize("kind", ["gateway", "bare"])
@pytest.mark.parametrize("core", [None, 1])
def test_the_command_line_says_what_to_serve_and_on_which_core(
    kind: str, core: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[tuple[int, set[int]]] = []
    printed = with_stdin(monkeypatch, b"")
    spec = {**msgspec.to_builtins(SPEC), "kind": kind, "core": core}
    monkeypatch.setattr(sys, "argv", ["server", json.dumps(spec)])
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: pinned.append((pid, cores)), raising=False)
    main()
    ready, used = answers(printed.getvalue())
    assert (ready.host, used) == ("127.0.0.1", [])
    assert ready.port > 0
    assert pinned == ([] if core is None else [(0, {core})])


def test_without_uvloop_the_loop_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory() is None


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = with_stdin(monkeypatch, b"usage\n")
    monkeypatch.setattr(server, "MEMORY_FILE", server.MEMORY_FILE / "missing")

    @asynccontextmanager
    async def nothing() -> AsyncIterator[tuple[str, int]]:
        yield "127.0.0.1", 1

    asyncio.run(serve(nothing()))
    _, (used,) = answers(printed.getvalue())
    assert used.rss_bytes is None
