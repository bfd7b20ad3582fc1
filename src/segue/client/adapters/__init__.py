"""One line for those who have an agent framework already: its requests run on sessions of this library.

`httpx_transport` takes the place of the HTTP transport below an SDK. `openai_sdk` makes the OpenAI SDK's client with
it, which openai-agents, pydantic-ai and other frameworks take. Not here: sessions themselves.
"""

from __future__ import annotations
