"""The session with CrewAI, which sends the whole conversation also when it continues by id (`auto_chain`)."""

from __future__ import annotations

from crewai import LLM, Agent
from crewai.tools import tool
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


def main() -> None:
    """Run it."""
    session = Session()
    url, model, by_id = session.options

    @tool("weather")
    def weather(city: str) -> str:
        """Tell the temperature in a city."""
        return session.weather(city)

    chat = LLM(model=f"openai/{model}", api="responses", auto_chain=by_id, base_url=url, api_key=KEY, max_retries=0)
    agent = Agent(role="Forecaster", goal="Answer.", backstory=INSTRUCTIONS, llm=chat, tools=[weather])
    said: list[dict[str, str]] = []
    for question in QUESTIONS:
        said.append({"role": "user", "content": question})
        session.answers.append(agent.kickoff(said).raw)
        said.append({"role": "assistant", "content": session.answers[-1]})
    session.end()


if __name__ == "__main__":
    main()
