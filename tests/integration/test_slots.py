"""Conversations pinned to the slots of llama.cpp's own server, with a gateway in front of it. All conversations begin
alike, so that the server could take one for another, and it has no room beside its slots unless a test gives it some.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import aiohttp
import pytest

from segue.config import UpstreamConfig
from segue.testing.response_schemas import Json
from segue.testing.tiny_model import write_tiny_model
from tests.integration.clients import Http
from tests.integration.providers import gateway
from tests.integration.servers import llama

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp's own server is not installed")

ALIKE = "You are told many words about the number of people. " * 8
#: A new message with the template around it, and what the last answer is read as that it was not written as.
NEW = 60


class Talk:
    """One conversation; `ids` are those of its responses, `known` the tokens of its last turn."""

    def __init__(self, client: Http, model: str) -> None:
        self._client = client
        self._model = model
        self.ids: list[str] = []
        self.known = 0
        self.items: list[Json] = []

    async def say(self, text: str, *, after: str | None = None, replay: bool = False) -> int:
        """Run a turn, after the last one or the one that is named; return how many tokens were read for it."""
        self.items.append({"role": "user", "content": text})
        asked: Json = {"model": self._model, "instructions": ALIKE, "max_output_tokens": 8, "temperature": 0.0}
        if replay:
            asked |= {"input": self.items}
        else:
            asked |= {"input": text, "previous_response_id": after or (self.ids[-1] if self.ids else None)}
        response = (await self._client.create(**asked)).body
        self.ids.append(response["id"])
        self.items += response["output"]
        usage = response["usage"]
        self.known = usage["total_tokens"]
        return int(usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"])


@asynccontextmanager
async def pinned(
    folder: Path, slots: int, *dialects: Literal["chat", "responses"], host_mib: int = 0
) -> AsyncIterator[tuple[Http, str]]:
    """A client of a gateway that pins to that many slots, in the model named after each dialect; the server's URL."""
    file = folder / "tiny.gguf"
    write_tiny_model(file)
    async with llama(file, slots, host_mib=host_mib) as server:
        ups = [UpstreamConfig(name=d, dialect=d, models=[d], base_url=f"{server}/v1", slots=slots) for d in dialects]
        async with gateway(*ups) as url, Http(url) as client:
            yield client, server


async def in_slots(server: str) -> list[int]:
    """How many tokens the last prompt of each slot had."""
    async with aiohttp.ClientSession() as session, session.get(f"{server}/slots") as reply:
        return [slot.get("n_prompt_tokens", 0) for slot in await reply.json()]


async def test_interleaved_conversations_are_found_in_their_own_slots(tmp_path: Path) -> None:
    """Three at once in three slots, in either dialect: of a continued turn only what is new is read."""
    async with pinned(tmp_path, 3, "chat", "responses") as (client, server):
        for dialect in ("chat", "responses"):
            talks = [Talk(client, dialect) for _ in range(3)]
            first = await asyncio.gather(
                *(talk.say(f"{n} {dialect} is what I say. " * 9) for n, talk in enumerate(talks))
            )
            assert min(first) > 2 * NEW
            for _ in range(3):
                assert max(await asyncio.gather(*(talk.say("And then?") for talk in talks))) < NEW
            assert min(await in_slots(server)) >= min(talk.known for talk in talks) - 1


async def test_more_conversations_than_slots_take_the_one_that_rested_longest(tmp_path: Path) -> None:
    """The others keep theirs."""
    async with pinned(tmp_path, 2, "chat") as (client, _):
        ann, bob, cyd = (Talk(client, "chat") for _ in range(3))
        for number, talk in enumerate((ann, bob, cyd)):
            await talk.say(f"{number} is what I say. " * 9)
        assert await bob.say("And then?") < NEW
        assert await cyd.say("And then?") < NEW
        assert await ann.say("And then?") > 2 * NEW
        assert await ann.say("And then?") < NEW
        assert await cyd.say("And then?") < NEW


async def test_what_lost_its_slot_is_found_in_the_servers_memory(tmp_path: Path) -> None:
    """If it has some, and the conversations have less than half in common: pinned ones too are brought back."""
    async with pinned(tmp_path, 2, "chat", host_mib=256) as (client, _):
        talks = [Talk(client, "chat") for _ in range(4)]
        for number, talk in enumerate(talks):
            await talk.say(f"{number} is what I say. " * 40)
        for _ in range(2):
            assert max([await talk.say("And then?") for talk in talks]) < NEW


async def test_branches_that_run_at_once_have_a_slot_each(tmp_path: Path) -> None:
    """And each finds its own again; a client that sends everything again finds its conversation too."""
    async with pinned(tmp_path, 2, "chat") as (client, _):
        one, other = Talk(client, "chat"), Talk(client, "chat")
        await one.say("This is where we begin. " * 9)
        start = one.ids[0]
        await asyncio.gather(one.say("Go left. " * 9), other.say("Go right. " * 9, after=start))
        for _ in range(2):
            assert max(await one.say("And then?"), await other.say("And then?")) < NEW
        again = Talk(client, "chat")
        await again.say("I say all of it each time. " * 9, replay=True)
        assert max([await again.say("And then?", replay=True) for _ in range(3)]) < NEW
