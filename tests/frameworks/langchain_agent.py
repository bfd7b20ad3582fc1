"""The session with LangChain, whose agent is a graph of LangGraph with a checkpoint after each step."""

from __future__ import annotations

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from session import INSTRUCTIONS, KEY, QUESTIONS, Session


def main() -> None:
    """Run it."""
    session = Session()
    url, model, by_id = session.options

    def weather(city: str) -> str:
        """Tell the temperature in a city."""
        return session.weather(city)

    chat = ChatOpenAI(
        model=model,
        base_url=url,
        api_key=KEY,
        max_retries=0,
        use_responses_api=True,
        use_previous_response_id=by_id,
        output_version="responses/v1",
    )
    agent = create_agent(chat, [weather], system_prompt=INSTRUCTIONS, checkpointer=InMemorySaver())
    for question in QUESTIONS:
        asked = {"messages": [{"role": "user", "content": question}]}
        state = agent.invoke(asked, {"configurable": {"thread_id": "t"}})
        session.answers.append(state["messages"][-1].text)
    session.end()


if __name__ == "__main__":
    main()
