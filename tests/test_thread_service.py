"""The double for message threads answers as the service that it stands for."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tests.thread_service import BETA, LIFE_S, ThreadService, said
from tests.upstreams.provider import providing

Json = dict[str, Any]
TOOL: Json = {"name": "look", "input_schema": {"type": "object"}}
CREATE: Json = {"type": "create"}


def on_from(ident: str) -> Json:
    return {"type": "continue", "previous_message_id": ident}


def user(content: Any) -> Json:  # noqa: ANN401 - a text or blocks
    return {"role": "user", "content": content}


class Asker:
    """Asks the service; answers with the id of its reply, or the code of its refusal."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, thread: Json | None, *messages: Json, beta: str | None = BETA, **fields: object) -> str:
        body = {"model": "m", "messages": list(messages), **fields} | ({} if thread is None else {"thread": thread})
        headers = {} if beta is None else {"anthropic-beta": beta}
        async with self._session.post("/v1/messages", json=body, headers=headers) as reply:
            text = await reply.text()
            if reply.status != 200:
                error: Json = json.loads(text)["error"]
                return f"{reply.status} {error.get('details', {}).get('error_code', error['message'])}"
            return str(json.loads(text.split("data: ")[1].split("\n")[0])["message"]["id"])


async def test_a_reply_can_be_continued_once_within_its_time_and_with_the_same_settings() -> None:
    service = ThreadService()
    async with providing(service.play) as provider, aiohttp.ClientSession(provider.url) as session:
        ask = Asker(session).ask
        first = await ask(CREATE, user("u1"), system="S", tools=[TOOL], temperature=0.5)
        assert await ask(on_from("msg_zz"), user("u2"), temperature=0.5) == "404 thread_not_found"
        assert await ask(on_from(first), user("u2")) == "400 thread_fingerprint_mismatch"
        other = await ask(on_from(first), user("u2"), temperature=0.5, system="S2")
        assert other == "400 thread_fingerprint_mismatch"
        second = await ask(on_from(first), user("u2"), temperature=0.5, system="S", max_tokens=9)
        assert service.prompts[-1]["tools"] == [TOOL]
        assert said(service.prompts[-1]) == [("user", "u1"), ("assistant", "r1"), ("user", "u2")]
        assert await ask(on_from(first), user("u2"), temperature=0.5) == "400 thread_already_continued"
        service.now += LIFE_S
        assert await ask(on_from(second), user("u3"), temperature=0.5) == "404 thread_not_found"
        await ask(None, user("u1"), beta=None)
        assert not service.violations


@pytest.mark.parametrize(
    ("thread", "message", "beta"),
    [
        (CREATE, user("u"), None),
        (None, user("u"), BETA),
        ({"type": "resume"}, user("u"), BETA),
        ({"type": "create", "id": "x"}, user("u"), BETA),
        (CREATE, user([{"type": "tool_result", "tool_use_id": "t"}]), BETA),
        (CREATE, user([{"type": "text", "text": str(number), "cache_control": {}} for number in range(5)]), BETA),
    ],
)
async def test_what_breaks_a_rule_is_noted(thread: Json | None, message: Json, beta: str | None) -> None:
    service = ThreadService()
    async with providing(service.play) as provider, aiohttp.ClientSession(provider.url) as session:
        assert (await Asker(session).ask(thread, message, beta=beta)).startswith("400")
    assert len(service.violations) == 1


async def test_a_continuation_repeats_no_reply() -> None:
    service = ThreadService()
    async with providing(service.play) as provider, aiohttp.ClientSession(provider.url) as session:
        first = await Asker(session).ask(CREATE, user("u1"))
        await Asker(session).ask(on_from(first), {"role": "assistant", "content": "r1"}, user("u2"))
    assert len(service.violations) == 1
