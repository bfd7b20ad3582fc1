"""A model that thinks first: its thoughts are an item of their own, streamed, counted, and given back to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from segue.engine import ModelFile
from segue.engine.model import LoadedModel
from segue.engine.upstream import LocalUpstream
from segue.testing.tiny_model import CHAT_TEMPLATE, write_tiny_model
from tests.engine.turns import Answer, ask, loaded, request

pytestmark = pytest.mark.local_engine

#: Thoughts are written again for all answers, so that each of them can be looked for.
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}"
    "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[LocalUpstream]:
    assert "think" not in CHAT_TEMPLATE
    template, file = tmp_path / "template.jinja", tmp_path / "tiny.gguf"
    template.write_text(TEMPLATE)
    write_tiny_model(file)
    made = ModelFile(file, "tiny", 1024, template=template, threads=1, kv_bytes=1, batch_invariant=True)
    async with loaded(made) as upstream:
        yield upstream


async def said(upstream: LocalUpstream, patch: pytest.MonkeyPatch, text: str, most: int = 200) -> Answer:
    """The answer of a model that writes this text, and then ends."""
    tokens = iter(upstream.model.tokenize(text, control=False))
    ends = [token for token in range(400) if upstream.model.is_end_of_answer(token)]

    class Writing:
        def sample(self, index: int) -> int:
            return next(tokens, ends[0])

    with patch.context() as patched:
        patched.setattr(LoadedModel, "sampler", lambda *given: Writing())
        return await ask(upstream, request("x", max_output_tokens=most))


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
