"""A model that thinks first: its thoughts are an item of their own, streamed, counted, and given back to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segue.engine import ModelFile
from segue.engine.model import LoadedModel
from segue.engine.prompt.chat_template import ANSWER_CHANNEL, CHANNELS
from segue.engine.upstream import LocalUpstream
from segue.protocol.items import Item
from segue.testing.tiny_model import CHAT_TEMPLATE, write_tiny_model
from tests.engine.turns import Answer, ask, loaded, request

pytestmark = pytest.mark.local_engine

#: Thoughts are written again for all answers, so that each of them can be looked for.
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}"
    "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


#: An answer is in a channel; thoughts are written again within a loop of calls.
IN_CHANNELS = (
    "{% for t in tools %}{{ '<|start|>system<|message|>' + t.function.name + '<|end|>' }}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking and m.tool_calls %}"
    "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{% if m.content or not m.tool_calls %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|end|>' }}{% endif %}{% for c in m.tool_calls %}{{ '<|start|>assistant to=functions.' + c.function.name }}"
    "{{ '<|channel|>commentary json<|message|>' + c.function.arguments + '<|call|>' }}{% endfor %}{% else %}"
    "{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
#: A function that the model may call.
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {"at": {"enum": ["a"]}}}}


@asynccontextmanager
async def templated(folder: Path, source: str) -> AsyncIterator[LocalUpstream]:
    """The tiny model with another template."""
    template, file = folder / "template.jinja", folder / "tiny.gguf"
    template.write_text(source)
    write_tiny_model(file)
    made = ModelFile(file, "tiny", 1024, template=template, threads=1, kv_bytes=1, batch_invariant=True)
    async with loaded(made) as upstream:
        yield upstream


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[LocalUpstream]:
    assert "think" not in CHAT_TEMPLATE
    async with templated(tmp_path, TEMPLATE) as upstream:
        yield upstream


@pytest.fixture
async def in_channels(tmp_path: Path) -> AsyncIterator[LocalUpstream]:
    async with templated(tmp_path, IN_CHANNELS) as upstream:
        assert upstream.model.template.supports_tools
        yield upstream


@contextmanager
def writing(upstream: LocalUpstream, patch: pytest.MonkeyPatch, text: str) -> Iterator[None]:
    """A model that writes this text in its next answer, and then ends."""
    tokens = iter(upstream.model.tokenize(text, control=False))
    ends = [token for token in range(400) if upstream.model.is_end_of_answer(token)]

    class Writing:
        def sample(self, index: int) -> int:
            return next(tokens, ends[0])

    with patch.context() as patched:
        patched.setattr(LoadedModel, "sampler", lambda *given: Writing())
        yield


async def said(
    upstream: LocalUpstream,
    patch: pytest.MonkeyPatch,
    text: str,
    most: int = 200,
    **settings: Any,  # noqa: ANN401 - fields of Settings
) -> Answer:
    """The answer of a model that writes this text, and then ends."""
    with writing(upstream, patch, text):
        return await ask(upstream, request("x", max_output_tokens=most, **settings))


async def test_thoughts_are_an_item_before_the_answer(upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    got = await said(upstream, monkeypatch, "<think>\nI see.\n</think>\n\nYes.")
    thought, message = got.items
    assert (thought["type"], thought["status"], thought["summary"]) == ("reasoning", "completed", [])
    assert thought["content"] == [{"type": "reasoning_text", "text": "I see."}]
    assert (message["type"], got.text) == ("message", "Yes.")
    counted = got.finished.head.usage
    assert counted is not None
    assert 0 < counted.output_tokens_details.reasoning_tokens < counted.output_tokens


async def test_they_are_given_back(upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the id and with the whole history alike."""
    got = await said(upstream, monkeypatch, "<think>\nI see.\n</think>\n\nYes.")
    thoughts = len(upstream.model.tokenize("<think>\nI see.\n</think>\n\n", control=False))
    again = await ask(upstream, request("and", got.turn))
    assert again.input_tokens >= got.input_tokens + thoughts
    items = [*got.turn.input, *got.turn.output, *again.turn.input]
    whole = await ask(upstream, request(items, tenant="another"))
    assert (whole.text, whole.input_tokens) == (again.text, again.input_tokens)


async def test_an_answer_that_ends_in_thoughts_is_incomplete(
    upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has no message; if the model itself ended there, the message is empty."""
    written = "<think>I see"
    cut = await said(upstream, monkeypatch, written, len(upstream.model.tokenize(written, control=False)))
    assert cut.finished.status == "incomplete"
    assert [(item["type"], item["status"]) for item in cut.items] == [("reasoning", "incomplete")]
    ended = await said(upstream, monkeypatch, written)
    assert ended.finished.status == "completed"
    assert [item["type"] for item in ended.items] == ["reasoning", "message"]


async def test_under_a_grammar_it_answers_at_once(upstream: LocalUpstream) -> None:
    """What must be JSON begins as such, and no marker may come first."""
    asked = request("x", max_output_tokens=400, text={"format": {"type": "json_object"}})
    got = await ask(upstream, asked)
    assert [item["type"] for item in got.items] == ["message"]
    if got.finished.status == "completed":
        assert isinstance(json.loads(got.text), dict)


async def test_channels_are_told_apart(in_channels: LocalUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    written = f"{CHANNELS.opening}I see.<|end|><|start|>assistant{ANSWER_CHANNEL}Yes."
    got = await said(in_channels, monkeypatch, written, 400)
    assert [item["type"] for item in got.items] == ["reasoning", "message"]
    assert (got.items[0]["content"][0]["text"], got.text) == ("I see.", "Yes.")
    counted = got.finished.head.usage
    assert counted is not None
    assert 0 < counted.output_tokens_details.reasoning_tokens < counted.output_tokens
    again = await ask(in_channels, request("and", got.turn))
    whole = await ask(in_channels, request([*got.turn.input, *got.turn.output, *again.turn.input], tenant="another"))
    assert (whole.text, whole.input_tokens) == (again.text, again.input_tokens)


async def test_thoughts_in_channels_come_back_with_the_call_that_they_led_to(
    in_channels: LocalUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the id and with the whole history; a comment before the call is text."""
    comment = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
    call = ' to=functions.look<|channel|>commentary json<|message|>{"at":"a"}'
    written = f"{CHANNELS.opening}Hm.<|end|><|start|>assistant{comment}{call}"
    got = await said(in_channels, monkeypatch, written, 400, tools=[TOOL])
    assert [item["type"] for item in got.items] == ["reasoning", "message", "function_call"]
    assert (got.text, got.items[2]["name"], got.items[2]["arguments"]) == ("I look.", "look", '{"at":"a"}')
    output = Item(
        msgspec.json.encode({"type": "function_call_output", "call_id": got.items[2]["call_id"], "output": "b"})
    )
    again = await ask(in_channels, request([output], got.turn, tools=[TOOL]))
    items = [*got.turn.input, *got.turn.output, output]
    whole = await ask(in_channels, request(items, tenant="another", tools=[TOOL]))
    assert (whole.text, whole.input_tokens) == (again.text, again.input_tokens)
    without = [item for item in items if b'"reasoning"' not in item]
    assert (await ask(in_channels, request(without, tools=[TOOL]))).input_tokens < whole.input_tokens


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"text": {"format": {"type": "json_object"}}}, "message"),
        ({"tools": [TOOL], "tool_choice": "required"}, "function_call"),
    ],
)
async def test_in_channels_what_a_grammar_demands_has_its_header(
    in_channels: LocalUpstream, settings: dict[str, Any], kind: str
) -> None:
    """The client gets what is behind it."""
    got = await ask(in_channels, request("x", max_output_tokens=400, **settings))
    assert [item["type"] for item in got.items] == [kind]
    if got.finished.status == "completed":
        assert isinstance(json.loads(got.text or got.items[0]["arguments"]), dict)
