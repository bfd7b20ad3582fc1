"""The OpenAI SDK on sessions."""

from __future__ import annotations

from segue.client import AsyncClient
from segue.client.adapters.openai_sdk import openai_client
from segue.testing.response_events import said
from segue.testing.responses_rules import OPENAI, playing
from segue.testing.responses_server import responding


async def test_the_sdk_speaks_through_a_session() -> None:
    model = playing([said("One.")], [said("Two.")], [said("Three.")])
    async with (
        responding(OPENAI, model=model) as server,
        AsyncClient(server.base_url, api_key="sk-client") as client,
        openai_client(client) as sdk,
    ):
        first = await sdk.responses.create(model="m", input="Count.", store=False)
        assert first.output_text == "One."
        second = await sdk.responses.create(model="m", input="On.", previous_response_id=first.id, store=False)
        assert second.output_text == "Two."
        stream = await sdk.responses.create(
            model="m", input="On.", previous_response_id=second.id, store=False, stream=True
        )
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        assert text == "Three."
        assert [create.transport for create in server.creates] == ["websocket"] * 3
        assert {name.lower(): value for name, value in server.upgrades[0].items()}[
            "authorization"
        ] == "Bearer sk-client"
