"""The session with LlamaIndex."""

from __future__ import annotations

import asyncio

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.memory import Memory
from llama_index.llms.openai import OpenAIResponses
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


async def main() -> None:
    """Run it."""
    session = Session()
    url, model, by_id = session.options

    def weather(city: str) -> str:
        """Tell the temperature in a city."""
        return session.weather(city)

    chat = OpenAIResponses(model=model, api_base=url, api_key=KEY, max_retries=0, track_previous_responses=by_id)
    agent = FunctionAgent(tools=[weather], llm=chat, system_prompt=INSTRUCTIONS)
    memory = Memory.from_defaults(session_id="s")
    for question in QUESTIONS:
        session.answers.append(str(await agent.run(question, memory=memory)))
    session.end()


if __name__ == "__main__":
    asyncio.run(main())
