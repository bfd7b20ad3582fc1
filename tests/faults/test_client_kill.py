"""kill -9 of the gateway in the middle of a client's turn: the session goes on with the next process."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from segue.client.client import AsyncClient
from segue.client.errors import OutcomeUnknownError
from segue.client.stream_events import OutputTextDelta
from tests.faults.gated_command import HALF, REST
from tests.faults.gateways import Process, serving
from tests.faults.response_proxy import proxied
from tests.faults.response_servers import items_of

# In one process, `test_client_faults` shows the same.
pytestmark = [pytest.mark.usefixtures("plain_loop"), pytest.mark.deep]

STORE = ("--store", "sqlite:///segue.db")


def address(process: Process) -> tuple[str, int]:
    """Return where a process listens."""
    url = urlsplit(process.url)
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


@pytest.mark.parametrize("way", ["http", "websocket"])
@pytest.mark.parametrize("store", [True, False])
async def test_a_session_outlives_its_gateway(way: Literal["http", "websocket"], store: bool, tmp_path: Path) -> None:
    """Nobody knows what became of the turn that ran: its keys and events went with the process. All else is there."""
    async with serving(tmp_path, *STORE, gated=True) as first:
        async with proxied(*address(first)) as proxy, AsyncClient(proxy.base_url, transport=way) as client:
            session = client.session(model="scripted", store=store)
            before = await session.send("one").response()
            turn = session.send("two", model="gated")
            async for event in turn:
                if isinstance(event, OutputTextDelta):
                    assert event.delta == HALF
                    break
            first.kill()
            async with serving(tmp_path, *STORE, gated=True) as second:
                proxy.target = address(second)
                proxy.cut()
                with pytest.raises(OutcomeUnknownError) as unknown:
                    await turn.response()
                assert unknown.value.response_id is not None
                assert len(session.history) == 2
                second.release()
                answer = await session.send("two", model="gated").response()
                await session.send("three").response()
        assert answer.output_text == HALF + REST
        contents = [item["content"] for item in items_of(session.history)]
        assert [content if isinstance(content, str) else content[0]["text"] for content in contents] == [
            *("one", before.output_text, "two", HALF + REST, "three", before.output_text),
        ]
        assert session.meters.resumes == session.meters.repeats == 0
