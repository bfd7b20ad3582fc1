"""The session with pydantic-ai."""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


async def main() -> None:
    """Run it."""
    session = Session()
    url, model, by_id = session.options
    settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto") if by_id else None
    agent = Agent(
        OpenAIResponsesModel(model, provider=OpenAIProvider(base_url=url, api_key=KEY)),
        instructions=INSTRUCTIONS,
        model_settings=settings,
        tools=[session.weather],
    )
    result = None
    for question in QUESTIONS:
        result = await agent.run(question, message_history=None if result is None else result.all_messages())
        session.answers.append(result.output)
    session.end()


if __name__ == "__main__":
    asyncio.run(main())
