"""Anthropic's SDK in Node at the door of the Messages API, with every API behind it: whole sessions of its tool runner,
which threads by default, a thread that is lost on the way, and plain requests. The provider reads everything each time.
"""

from __future__ import annotations

import pytest

from segue.testing.response_schemas import Json
from tests.integration.cases import Said, Step, case_provider, transcript
from tests.integration.node_programs import is_installed, run_node
from tests.integration.providers import Api, gateway, upstream

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not is_installed("@anthropic-ai/sdk"), reason="`make setup` installs Anthropic's SDK for Node"),
]

SESSION = [
    Step("Oslo first.", (("call_1", {"city": "Oslo"}),)),
    Step("", (("call_2", {"city": "Rome"}),)),
    Step("Both have 7 degrees."),
]
NAMED = [Step("Hello, Ada."), Step("It is Ada."), Step("It is adA.")]
CASES = {"runner": SESSION, "streamed": SESSION, "lost": SESSION, "thread": NAMED, "plain": NAMED[:2]}
#: What a thread keeps is sent with its first request alone.
CREATE, CONTINUE = ["create", 1, True], ["continue", 1, False]
DONE: Json = {"text": "Both have 7 degrees.", "runs": ["Oslo", "Rome"], "sent": [CREATE, CONTINUE, CONTINUE]}
RESULTS: Json = {
    "runner": DONE,
    "streamed": DONE,
    "lost": {**DONE, "sent": [CREATE, CONTINUE, CONTINUE, ["create", 5, True]]},
    "thread": {
        "texts": ["Hello, Ada.", "It is Ada.", "It is adA."],
        "sent": [CREATE, CONTINUE, ["create", 5, True]],
    },
    "plain": {"texts": ["Hello, Ada.", "It is Ada."], "whole": True, "sent": [[None, 1, True], [None, 3, True]]},
    "unknown": {"name": "ThreadNotFoundError", "code": "thread_not_found", "named": True},
}
NAMES: list[Said] = [
    ("user", "My name is Ada."),
    ("assistant", "Hello, Ada."),
    ("user", "What is my name?"),
    ("assistant", "It is Ada."),
    ("user", "And backwards?"),
]
WEATHER: list[Said] = [
    ("user", "How warm is it in Oslo, and then in Rome?"),
    ("assistant", "Oslo first."),
    ("call", "call_1", '{"city": "Oslo"}'),
    ("output", "call_1", "Oslo: 7 degrees"),
    ("call", "call_2", '{"city": "Rome"}'),
    ("output", "call_2", "Rome: 7 degrees"),
]
#: How much of it the provider reads in each request.
READ: dict[str, tuple[list[Said], tuple[int, ...]]] = {
    **dict.fromkeys(("runner", "streamed", "lost"), (WEATHER, (1, 4, 6))),
    "thread": (NAMES, (1, 3, 5)),
    "plain": (NAMES, (1, 3)),
}


@pytest.mark.parametrize(
    "api", ["messages", pytest.param("chat", marks=pytest.mark.deep), pytest.param("responses", marks=pytest.mark.deep)]
)
async def test_conversations_come_to_what_they_should_and_the_provider_reads_them_whole(api: Api) -> None:
    """Also where a thread goes on at a gateway that has nothing of it: then the SDK sends everything again, once."""
    async with (
        case_provider(api, CASES) as server,
        gateway(upstream(server, models=["*"])) as url,
        gateway(upstream(server, models=["*"])) as other,
    ):
        assert await run_node("anthropic_sdk.mjs", url=url, other=other) == RESULTS
        for case, (said, lengths) in READ.items():
            (kind, words), *more = said
            whole = [(kind, f"{case}: {words}"), *more]
            assert [transcript(api, body) for body in server.conversations[case]] == [
                whole[:length] for length in lengths
            ]
