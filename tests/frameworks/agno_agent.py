"""The session with agno, which continues by id where the model's name is that of a reasoning model."""

from __future__ import annotations

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.openai import OpenAIResponses
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


def main() -> None:
    """Run it."""
    session = Session()
    url, model, by_id = session.options

    def weather(city: str) -> str:
        """Tell the temperature in a city."""
        return session.weather(city)

    responses = OpenAIResponses(
        id=model, api_key=KEY, base_url=url, max_retries=0, store=by_id, use_previous_response_id=by_id
    )
    agent = Agent(
        model=responses,
        instructions=INSTRUCTIONS,
        tools=[weather],
        db=InMemoryDb(),
        session_id="s",
        add_history_to_context=True,
        telemetry=False,
    )
    session.answers += [agent.run(question).content for question in QUESTIONS]
    session.end()


if __name__ == "__main__":
    main()
