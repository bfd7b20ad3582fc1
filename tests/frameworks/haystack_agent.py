"""The session with Haystack. It continues from turn to turn by id, and sends all steps of one turn again in each."""

from __future__ import annotations

from typing import Annotated, Any

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


def main() -> None:
    """Run it."""
    session = Session()
    url, model, by_id = session.options

    @tool
    def weather(city: Annotated[str, "The city"]) -> str:
        """Tell the temperature in a city."""
        return session.weather(city)

    chat = OpenAIResponsesChatGenerator(model=model, api_key=Secret.from_token(KEY), api_base_url=url, max_retries=0)
    agent = Agent(chat_generator=chat, tools=[weather], system_prompt=INSTRUCTIONS)
    said: list[ChatMessage] = []
    options: dict[str, Any] = {}
    for question in QUESTIONS:
        result = agent.run([*said, ChatMessage.from_user(question)], generation_kwargs=options)
        session.answers.append(result["last_message"].text)
        if by_id:
            options = {"previous_response_id": result["last_message"].meta["id"]}
        else:
            said = result["messages"]
    session.end()


if __name__ == "__main__":
    main()
