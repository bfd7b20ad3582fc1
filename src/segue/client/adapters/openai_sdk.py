"""The OpenAI SDK's asynchronous client on sessions: what frameworks take in place of their own.

    openai-agents: set_default_openai_client(openai_client(client))
    pydantic-ai:   OpenAIResponsesModel("gpt-5", provider=OpenAIProvider(openai_client=openai_client(client)))

Not here: how a request becomes a turn of a session (`httpx_transport`).
"""

from __future__ import annotations

import httpx2
from openai import AsyncOpenAI

from segue.client.adapters.httpx_transport import SessionTransport
from segue.client.client import AsyncClient
from segue.client.settings import HistoryMode, TransportMode

#: Turns take as long as their session lets them.
_NO_TIMEOUT = httpx2.Timeout(None)


def openai_client(
    client: AsyncClient, *, transport: TransportMode = "auto", history: HistoryMode = "auto", api_key: str | None = None
) -> AsyncOpenAI:
    """Return an `AsyncOpenAI` whose Responses run on sessions of this client.

    The SDK retries nothing: sessions do that where it is safe. Turns use the client's own key. `api_key` is for all
    other requests, such as listing models.
    """
    http_client = httpx2.AsyncClient(
        transport=SessionTransport(client, transport=transport, history=history), timeout=_NO_TIMEOUT
    )
    return AsyncOpenAI(
        base_url=client.base_url, api_key=api_key or "held-by-the-client", http_client=http_client, max_retries=0
    )
