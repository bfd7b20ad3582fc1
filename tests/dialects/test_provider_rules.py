"""Whatever models of all providers and their clients wrote, a provider takes the history, and nothing of it is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.chat.request import ChatDialect
from segue.dialects.interface import Dialect, Rendered
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.provider_families import FAMILIES
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import ResponsesDialect
from segue.history.chains import History
from segue.protocol.requests import Settings, json_text
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import CHAT, MESSAGES, PIXEL, RESPONSES, Request, encode_items, grow, replay, thought
from tests.dialects.provider_rules import (
    check_anthropic,
    check_chat,
    check_deepseek,
    check_llama_server,
    check_mistral,
    check_responses,
)
from tests.strategies import examples

Json = dict[str, Any]
Check = Callable[[Json], None]

#: Every provider: its dialect, the model, and its rules.
PROVIDERS: dict[str, tuple[Dialect, str, Check]] = {
    "sonnet-4-5": (MessagesDialect(MESSAGES), "claude-sonnet-4-5", check_anthropic),
    "opus-4-6": (MessagesDialect(MESSAGES), "claude-opus-4-6", check_anthropic),
    "openai": (ChatDialect(CHAT, profile=FAMILIES["openai"].profile), "gpt-5", check_chat),
    "mistral": (ChatDialect(CHAT, profile=FAMILIES["mistral"].profile), "mistral-large", check_mistral),
    "deepseek": (ChatDialect(CHAT), "deepseek-chat", check_deepseek),
    "llama-server": (ChatDialect(CHAT), "qwen3", check_llama_server),
    "responses": (ResponsesDialect(RESPONSES), "gpt-5", check_responses),
}
every_provider = pytest.mark.parametrize("name", PROVIDERS)

_REASONING = (
    thought(MESSAGES, {"signature": "c2ln", "effort": "high"}),
    thought(MESSAGES, {"redacted": "b3BhcXVl"}, ""),
    thought(CHAT, {"field": "reasoning_content"}),
    thought(RESPONSES, {"a": 1}),
    {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
)
_IDS = ("call_0", "call_1", "toolu_01AbC", "aB3dE6gH9", "call_PTLP8xhu3uwZk4l3", "x" * 85, "", "é 1")
_ARGUMENTS = ("{}", "", " ", '{"a": "lo', "[1]", '"x"', '{"a": {"b": [1.50]}}', "{" * 99, '{"a":' * 99 + "1" + "}" * 99)
IMAGES = (PIXEL, "data:image/jpg;base64,/9j/4AAQSkZJRg==", "DATA:image/JPG;x=y;base64,/9j/4AAQSkZJRg==")


class _Conversation:
    """Draws the items of a conversation; every text in it is a word of its own, so that none can be lost unseen."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.words: list[str] = []
        self.turns: list[tuple[list[Json], list[Json]]] = []
        self.late: list[Json] = []

    def word(self) -> str:
        self.words.append(f"<{len(self.words)}>")
        return self.words[-1]

    def parts(self) -> str | list[Json]:
        count = self.draw(st.integers(0, 2))
        if not count:
            return self.word()
        texts: list[Json] = [{"type": "input_text", "text": self.word()} for _ in range(count)]
        if self.draw(st.booleans()):
            texts.insert(1, {"type": "input_image", "image_url": self.draw(st.sampled_from(IMAGES))})
        return texts

    def others(self, *, most: int = 2) -> list[Json]:
        roles = self.draw(st.lists(st.sampled_from(["user", "developer", "system"]), max_size=most))
        return [{"role": role, "content": self.parts() if role == "user" else self.word()} for role in roles]

    def outputs(self, calls: list[Json]) -> list[Json]:
        """The outputs of calls, in any order; one may come a turn later, or never."""
        outputs: list[Json] = [
            {"type": "function_call_output", "call_id": call["call_id"], "output": self.parts()} for call in calls
        ]
        outputs = self.draw(st.permutations([*outputs, *self.late]))
        held_back: bool = self.draw(st.booleans())
        self.late = [outputs.pop()] if outputs and held_back else []
        return outputs

    def answer(self) -> tuple[list[Json], list[Json]]:
        """What the model says in a turn, and the outputs of its calls."""
        said: list[Json] = self.draw(st.lists(st.sampled_from(_REASONING), max_size=2))
        calls: list[Json] = []
        if self.draw(st.booleans()):
            said.append(
                {"role": "assistant", "type": "message", "content": self.draw(st.sampled_from(["", self.word()]))}
            )
            if said[-1]["content"] == "":
                self.words.pop()
        for call_id in self.draw(st.lists(st.sampled_from(_IDS), max_size=3, unique=True)):
            call: Json = {"type": "function_call", "call_id": call_id, "name": "look"}
            calls.append(call | {"arguments": self.draw(st.sampled_from(_ARGUMENTS))})
        return [*said, *calls], self.outputs(calls)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[tuple[list[Json], list[Json]]], list[str]]:
    """Turns of (input, output) and the words in them. The last turn has only an input."""
    conversation = _Conversation(draw)
    given_items = [*conversation.others(), {"role": "user", "content": conversation.parts()}]
    for _ in range(draw(st.integers(0, 4))):
        said, outputs = conversation.answer()
        conversation.turns.append((given_items, said))
        given_items = draw(st.permutations([*outputs, *conversation.others(most=1)]))
        given_items = given_items or [{"role": "user", "content": conversation.parts()}]
    conversation.turns.append((given_items, []))
    lost = json.dumps(conversation.late)
    return conversation.turns, [word for word in conversation.words if word not in lost]


wishes = st.fixed_dictionaries(
    {},
    optional={
        "reasoning": st.sampled_from([None, {"effort": "none"}, {"effort": "low"}, {"effort": "high"}]),
        "tool_choice": st.sampled_from(["auto", "required", {"type": "function", "name": "look"}]),
        "max_output_tokens": st.sampled_from([500, 2000]),
        "temperature": st.just(0.5),
        "instructions": st.just(json_text("Be brief.")),
    },
)
TOOLS = [{"type": "function", "name": "look", "parameters": {"properties": {"a": {"type": "string"}}}}]


@every_provider
@given(conversation=conversations(), wishes=wishes)
@settings(max_examples=examples(400))
def test_each_turn_is_one_that_the_provider_takes(
    name: str, conversation: tuple[list[tuple[list[Json], list[Json]]], list[str]], wishes: Json
) -> None:
    """In deltas, and sent whole: that is the same to the byte."""
    dialect, model, check = PROVIDERS[name]
    wanted = Settings(model="m", tools=TOOLS, **wishes)
    turns, words = conversation
    kept, parent = RenderCache(1 << 24), None
    seen: list[bytes] = []
    sent = ""
    for given_items, made in turns:
        asked = encode_items(given_items)
        seen += asked
        rendered = dialect.render(Request(History(parent, asked), wanted, model), kept)
        whole = dialect.render(Request(replay(seen), wanted, model), RenderCache(0))
        assert isinstance(rendered, Rendered)
        assert isinstance(whole, Rendered)
        assert (rendered.body, rendered.warnings) == (whole.body, whole.warnings)
        sent = rendered.body.decode()
        check(parse_json(sent))
        parent = grow(parent, asked, encode_items(made))
        seen += encode_items(made)
    assert sorted(sent.index(word) for word in words), "every text is there"
    assert all(sent.count(word) == 1 for word in words), "and once"


def test_outputs_stand_with_their_calls_where_a_server_begins_anew_in_each_turn() -> None:
    """Chat servers that call their calls `call_0`, `call_1`, … in each answer."""
    items: list[Json] = [{"role": "user", "content": "go"}]
    for turn in range(3):
        for index in (0, 1):
            call: Json = {"type": "function_call", "call_id": f"call_{index}", "name": "look"}
            items.append(call | {"arguments": json.dumps({"turn": turn, "index": index})})
        for index in (1, 0):
            output = {"type": "function_call_output", "call_id": f"call_{index}", "output": f"{turn}/{index}"}
            items.append(output)
    for dialect, model, _ in PROVIDERS.values():
        rendered = dialect.render(Request(replay(encode_items(items)), model=model), RenderCache(0))
        assert isinstance(rendered, Rendered)
        pairs = _pairs(parse_json(rendered.body.decode()))
        assert len(pairs) == 6
        assert all(told == f"{asked['turn']}/{asked['index']}" for asked, told in pairs.values())


def _pairs(body: Json) -> dict[str, tuple[Json, str]]:
    """The arguments and the output of each call, by the id of the call."""
    made: dict[str, Json] = {}
    told: dict[str, str] = {}
    for item in body.get("input", ()):
        if item.get("type") == "function_call":
            made[item["call_id"]] = json.loads(item["arguments"])
        elif item.get("type") == "function_call_output":
            told[item["call_id"]] = item["output"]
    for message in body.get("messages", ()):
        for call in message.get("tool_calls", ()):
            made[call["id"]] = json.loads(call["function"]["arguments"])
        if message["role"] == "tool":
            told[message["tool_call_id"]] = message["content"]
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_use":
                made[block["id"]] = block["input"]
            elif block["type"] == "tool_result":
                told[block["tool_use_id"]] = block["content"][0]["text"]
    assert made.keys() == told.keys()
    return {ident: (made[ident], told[ident]) for ident in made}
