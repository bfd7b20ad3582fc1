"""The AI SDK of Vercel, in Node, through the gateway with every API behind it: each of its usual cases comes to what it
would at the provider, and the provider was asked what the conversation is, word for word. Through the sidecar, the
SDK's other providers likewise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Literal, TypeAlias

import pytest

from segue.config import Config, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.testing.response_schemas import Json
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.integration.cases import CaseProvider, Said, Step, case_provider, transcript
from tests.integration.node_programs import is_installed, run_node
from tests.integration.providers import Api, gateway, upstream
from tests.sidecar.sidecars import running as sidecar_running

PROGRAM = "ai_sdk.mjs"
#: Whether the SDK says that responses are stored. Left alone, it takes that for granted, and refers to items.
Store: TypeAlias = Literal["as it comes", "stored", "not stored"]
STORES: dict[Store, bool | None] = {"as it comes": None, "stored": True, "not stored": False}

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not is_installed("ai"), reason="`make setup` installs the AI SDK"),
]

OSLO: tuple[str, Json] = ("call_1", {"city": "Oslo"})
ROME: tuple[str, Json] = ("call_2", {"city": "Rome"})
COLD = {"city": "Oslo", "degrees": 7}
CASES: dict[str, list[Step]] = {
    "generate": [Step("Hello to you, whoever you are.")],
    "stream": [Step("Hello to you, whoever you are.")],
    "tool": [Step("I look.", (OSLO,))],
    "steps": [Step("Oslo first.", (OSLO,)), Step("", (ROME,)), Step("Both have 7 degrees.")],
    "parallel": [Step("", (OSLO, ROME)), Step("Both have 7 degrees.")],
    "object": [Step(json.dumps(COLD))],
    "turns": [Step("Hello, Ada."), Step("It is Ada."), Step("It is adA.")],
    "image": [Step("It is one pixel.")],
    "reasoning": [
        Step("", (OSLO,), "I need the weather."),
        Step("It has 7 degrees.", thought="Now I know."),
        Step("It is."),
    ],
}
#: With the id of the response before, where responses are stored.
STORED_CASES: dict[str, list[Step]] = {**CASES, "chained": CASES["turns"]}
PIXEL = "data:image/png;base64,iVBORw0KGgo"
OUTPUTS: dict[str, Said] = {ident: ("output", ident, f"{given['city']}: 7 degrees") for ident, given in (OSLO, ROME)}


def expected(api: Api, *, stored: bool) -> Json:
    """What the program prints."""
    turns = {"texts": ["Hello, Ada.", "It is Ada.", "It is adA."]}
    return {
        **({"chained": {**turns, "byId": True}} if stored else {}),
        "generate": {"text": "Hello to you, whoever you are.", "finishReason": "stop", "counted": True},
        "stream": {"text": "Hello to you, whoever you are.", "inPieces": True, "finishReason": "stop"},
        "tool": {"calls": [{"toolName": "weather", "input": {"city": "Oslo"}}], "finishReason": "tool-calls"},
        "steps": {"text": "Both have 7 degrees.", "steps": 3, "runs": ["Oslo", "Rome"]},
        "parallel": {"text": "Both have 7 degrees.", "steps": 2, "runs": ["Oslo", "Rome"]},
        "object": {"output": COLD},
        "turns": turns,
        "image": {"text": "It is one pixel."},
        "reasoning": {
            "texts": ["It has 7 degrees.", "It is."],
            "thought": "" if api == "chat" else "I need the weather.Now I know.",
            "runs": ["Oslo"],
        },
        "abort": {"begun": True, "aborted": True},
        "error": {"statusCode": 400, "told": True, "retryable": False},
    }


def conversation(api: Api, first: list[Said], steps: Sequence[Step], *then: str) -> list[Said]:
    """What the last request of a case says: what the user began with, and all but the last step."""
    said, more = list(first), list(then)
    for step in steps[:-1]:
        said += [("thought", step.thought)] if step.thought and api != "chat" else []
        said += [("assistant", step.text)] if step.text else []
        said += [("call", ident, json.dumps(arguments)) for ident, arguments in step.calls]
        said += [OUTPUTS[ident] for ident, _ in step.calls]
        said += [] if step.calls else [("user", more.pop(0))]
    return said


PROMPTS: dict[str, str] = {
    "generate": "generate: Say hello.",
    "stream": "stream: Say hello.",
    "tool": "tool: How warm is it in Oslo?",
    "steps": "steps: How warm is it in Oslo, and then in Rome?",
    "parallel": "parallel: How warm is it in Oslo and Rome?",
    "object": "object: How warm is it in Oslo?",
    "turns": "turns: My name is Ada.",
    "chained": "chained: My name is Ada.",
    "image": "image: What is it?",
    "reasoning": "reasoning: How warm is it in Oslo?",
}
LATER: dict[str, tuple[str, ...]] = {
    "turns": ("What is my name?", "And backwards?"),
    "chained": ("What is my name?", "And backwards?"),
    "reasoning": ("Is that cold?",),
}


def check_asked(api: Api, server: CaseProvider, *, thoughts: bool = True) -> None:
    """The last request of each case holds the whole of it, once; and there were no requests but these."""
    for case, steps in server.cases.items():
        bodies = server.conversations[case]
        assert len(bodies) == len(steps), case
        said = transcript(api, bodies[-1])
        if case == "image":
            kind, url = said.pop(1)
            assert (kind, url[: len(PIXEL)]) == ("image", PIXEL)
        began: list[Said] = [("user", PROMPTS[case])]
        assert said == conversation(api if thoughts else "chat", began, steps, *LATER.get(case, ())), case
    assert server.hung_up == 1


def matrix() -> list[object]:
    """Every API with every way to store; one way stands for all where time counts."""
    return [
        pytest.param(api, store, id=f"{api}-{store}", marks=[] if store == "as it comes" else [pytest.mark.deep])
        for api in ("chat", "messages", "responses")
        for store in STORES
    ]


@pytest.mark.parametrize(("api", "store"), matrix())
async def test_all_cases_come_to_what_they_should(api: Api, store: Store) -> None:
    """With the SDK's provider for OpenAI, which speaks Responses."""
    async with AsyncExitStack() as stack:
        stored = store != "not stored"
        server = await stack.enter_async_context(case_provider(api, STORED_CASES if stored else CASES))
        url = await stack.enter_async_context(gateway(upstream(server, models=["*"])))
        results = await run_node(PROGRAM, url=url, provider="openai", store=STORES[store])
        assert results == expected(api, stored=stored)
        check_asked(api, server)


def door_matrix() -> list[object]:
    """The SDK's providers of other APIs, with every API behind the gateway; one of each stands for all."""
    quick = {("compatible", "messages")}
    return [
        pytest.param(provider, api, marks=[] if (provider, api) in quick else [pytest.mark.deep])
        for provider in ("chat", "compatible")
        for api in ("chat", "messages", "responses")
    ]


@pytest.mark.parametrize(("provider", "api"), door_matrix())
async def test_all_cases_come_to_what_they_should_at_the_door_of_chat_completions(provider: str, api: Api) -> None:
    """The SDK keeps no reasoning of that API, so none goes back to its model."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(case_provider(api, CASES))
        url = await stack.enter_async_context(gateway(upstream(server, models=["*"])))
        results = await run_node(PROGRAM, url=url, provider=provider, store=None)
        thought = "I need the weather.Now I know." if provider == "compatible" and api != "chat" else ""
        wanted = expected("chat", stored=False)
        assert results == {**wanted, "reasoning": {**wanted["reasoning"], "thought": thought}}
        check_asked(api, server, thoughts=False)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("provider", "api"),
    [("openai", "responses"), ("chat", "chat"), ("compatible", "chat"), ("anthropic", "messages")],
)
async def test_all_cases_pass_through_the_sidecar(provider: str, api: Api) -> None:
    """Whichever API the SDK speaks: the gateway forwards it as it is."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(case_provider(api, CASES, foreign=True))
        route = [RouteConfig(path="/v1", target=server.url.removesuffix("/v1"))]
        config = Config(server=ServerConfig(port=0, store="memory:"), route=route)
        router = Router([ModelRule(ScriptedUpstream(), (MODEL,))])
        _, url = await stack.enter_async_context(serving(config, router))
        sidecar = await stack.enter_async_context(sidecar_running(url.replace("http", "ws", 1)))
        await sidecar.linked()
        results = await run_node(
            PROGRAM, url=sidecar.sidecar.url, provider=provider, store=False if provider == "openai" else None
        )
        assert results == expected(api, stored=False)
        check_asked(api, server)
