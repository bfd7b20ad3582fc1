"""The session with ag2, which keeps the history itself: it has no way to continue by id."""

from __future__ import annotations

import asyncio

from ag2 import Agent
from ag2.config import OpenAIResponsesConfig
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


async def main() -> None:
    """Run it."""
    session = Session()
    url, model, _ = session.options
    config = OpenAIResponsesConfig(model, api_key=KEY, base_url=url, max_retries=0)

    def weather(city: str) -> str:
        """Tell the temperature in a city."""
        return session.weather(city)

    agent = Agent("forecaster", INSTRUCTIONS, config=config, tools=[weather])
    reply = await agent.ask(QUESTIONS[0])
    session.answers.append(reply.body)
    reply = await reply.ask(QUESTIONS[1])
    session.answers.append(reply.body)
    session.end()


if __name__ == "__main__":
    asyncio.run(main())
