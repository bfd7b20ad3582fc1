"""The session with openai-agents."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


async def main() -> None:
    """Run it."""
    session = Session()
    url, model, by_id = session.options

    @function_tool
    def weather(city: str) -> str:
        """Tell the temperature in a city."""
        return session.weather(city)

    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        agent = Agent(name="A", instructions=INSTRUCTIONS, tools=[weather], model=OpenAIResponsesModel(model, client))
        said: list[Any] = []
        options: dict[str, Any] = {}
        for question in QUESTIONS:
            asked = {"role": "user", "content": question}
            if by_id:
                options["auto_previous_response_id"] = True
            result = await Runner.run(agent, [*said, asked], **options)
            session.answers.append(result.final_output)
            if by_id:
                options["previous_response_id"] = result.last_response_id
            else:
                said = result.to_input_list()
    session.end()


if __name__ == "__main__":
    asyncio.run(main())
