"""A gateway that is killed while it reads nothing: what has wholly left for it is unknown, and all else is asked again.

A process that gets SIGKILL keeps its connections open until the kernel has taken it down, tens of milliseconds on a
busy machine, and it reads nothing of what comes meanwhile. A sidecar cannot tell that from a gateway which has
forwarded a request and died. A gateway that stands still before it is killed draws that time out. Not here: gateways
that are killed while they work (`test_tunnel_nodes`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from segue.http.heads import Line
from segue.testing.link import linked
from segue.testing.provider import Answer, ReceivedRequest, ScriptedProvider, provided
from tests.faults.clients import address_of
from tests.faults.gateways import PATIENCE_S, serving, until
from tests.faults.tunnels import PATIENT, body_of, status_of
from tests.sidecar.sidecars import running as sidecar_running

SMALL = json.dumps({"messages": [{"role": "user", "content": "why?"}]}).encode()
#: More than a gateway lets come before it has read any of it.
LARGE = json.dumps({"messages": [{"role": "user", "content": random.Random(1).randbytes(400_000).hex()}]}).encode()
REPLY = b"data: 1\n\n"


def at_once(_: ReceivedRequest) -> Answer:
    return Answer(lines=(Line(b"Content-Type", b"text/event-stream"),), pieces=(REPLY,))


@asynccontextmanager
async def gateways(folder: Path) -> AsyncIterator[tuple[ScriptedProvider, AsyncExitStack, tuple[str, str]]]:
    """A provider, what gateways are entered into, and the arguments that lead a gateway to the provider."""
    async with provided(at_once) as provider, AsyncExitStack() as stack:
        config = folder / "segue.toml"
        config.write_text(
            '[server]\nstore = "memory:"\n[[upstream]]\nname = "s"\ndialect = "scripted"\nmodels = ["s"]\n'
            f'[[route]]\npath = "/v1"\ntarget = "{provider.url}"\n'
        )
        yield provider, stack, ("--config", str(config))


@pytest.mark.parametrize("at_its_address", [True, False], ids=["restarted", "another"])
async def test_what_left_wholly_is_unknown_and_the_rest_is_asked_again(at_its_address: bool, tmp_path: Path) -> None:
    async with gateways(tmp_path) as (provider, stack, arguments):
        doomed = await stack.enter_async_context(serving(tmp_path, *arguments))
        host, port = address_of(doomed.url)
        balancer = await stack.enter_async_context(linked(host, port))
        sidecar = await stack.enter_async_context(sidecar_running(balancer.url, settings=PATIENT))
        await sidecar.linked()
        os.kill(doomed.pid, signal.SIGSTOP)
        sent_bytes = balancer.sent_up_bytes
        small = asyncio.create_task(sidecar.post(SMALL, target="/v1/messages"))
        await until(lambda: balancer.sent_up_bytes > sent_bytes and sidecar.sidecar.report().queued == 0)
        large = asyncio.create_task(sidecar.post(LARGE, target="/v1/messages"))
        await until(lambda: sidecar.sidecar.report().queued == 1)
        doomed.kill()
        assert await doomed.left(PATIENCE_S)
        next_one = await stack.enter_async_context(serving(tmp_path, *arguments, port=port if at_its_address else 0))
        stack.enter_context(balancer.diverted(*address_of(next_one.url)))
        told = await asyncio.wait_for(small, 40)
        assert (status_of(told), json.loads(body_of(told))["error"]["code"]) == (424, "segue_outcome_unknown")
        assert b"\r\nx-should-retry: false\r\n" in told
        assert b"was not sent again" in told
        assert body_of(await asyncio.wait_for(large, 40)) == REPLY
        assert [request.body for request in provider.requests] == [LARGE]
        assert body_of(await sidecar.post(SMALL, target="/v1/messages")) == REPLY  # the agent may ask again itself
        assert [request.body for request in provider.requests] == [LARGE, SMALL]
