"""What was found fits 80 columns, and says what is wrong."""

from __future__ import annotations

import io

from segue.bench.endpoint.measure import EndpointResult, EndpointTarget, measure_endpoint
from segue.bench.endpoint.plan import EndpointPlan
from segue.bench.endpoint.view import render_endpoint
from segue.testing.provider import provided
from tests.bench.endpoint.servers import stateless
from tests.terminals import terminal_of


def shown(result: EndpointResult) -> str:
    screen = io.StringIO()
    render_endpoint(result, terminal_of(file=screen, width=80))
    return screen.getvalue()


async def test_a_forgetful_server_without_websockets() -> None:
    async with provided(*stateless(upgrades=False)) as provider:
        target = EndpointTarget(base_url=f"{provider.url}/v1", deadline_s=10.0)
        result = await measure_endpoint(target, EndpointPlan(model="m", turns=3, rounds=1, turn_bytes=900))
    text = shown(result)
    lines = [line.split() for line in text.splitlines()]
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    (by_id,) = [line for line in lines if line[:4] == ["http", "id", "yes", "forgets"]]
    assert by_id[-1] == "%"
    assert "websocket replay: no WebSocket: 426" in text
    assert "http id: forgets: the model knows the word" in text
    assert ["websocket", "replay", "no"] in lines
    assert text.count("http replay") == 2  # with bytes, and with times
    assert text.count("websocket replay") == 2  # with what was found, and why
