"""Continued, forked, evicted, restored, moved, beside others: the same answer as alone, to the last bit.

What the model makes of every token is compared by the probabilities it tells: one bit that is rounded otherwise
anywhere before would show in them.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import pytest

from segue.engine import ModelFile
from segue.engine import model as local_model
from segue.engine.upstream import LocalUpstream
from segue.history.chains import Turn
from segue.protocol.requests import OUTPUT_LOGPROBS
from segue.testing.tiny_model import TinyModelShape, write_tiny_model
from tests.engine.turns import Answer, ask, ask_alone, begin, first_text, loaded, request

pytestmark = pytest.mark.local_engine

#: As wide as the blocks of quantised weights.
SHAPE = TinyModelShape(width=256, heads=4, kv_heads=2, hidden=256)
#: llama.cpp's numbers of file types. Each is computed by kernels of its own; F32 also when a token is alone.
KINDS = {"F32": None, "F16": 1, "Q8_0": 7, "Q4_K": 15}
ASKED: dict[str, Any] = {"include": [OUTPUT_LOGPROBS], "max_output_tokens": 6}
WORDS = ["many", "words", "about", "the", "number", "of", "people", "who", "call", "one", "another"]


@pytest.fixture(
    scope="module", params=["Q8_0", *(pytest.param(kind, marks=pytest.mark.deep) for kind in ("F32", "F16", "Q4_K"))]
)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    path = folder / "F32.gguf"
    write_tiny_model(path, SHAPE)
    kind = KINDS[request.param]
    if kind is not None:
        llama = import_module("cyllama.llama.llama_cpp")
        llama.disable_logging()
        params = llama.LlamaModelQuantizeParams()
        params.ftype = kind
        path = folder / f"{request.param}.gguf"
        llama.model_quantize(str(folder / "F32.gguf"), str(path), params)
    return path


def told(answer: Answer) -> list[tuple[str, float]]:
    """The tokens of an answer's text and what the model made of them."""
    parts = [part for item in answer.items for part in item["content"]]
    return [(one["token"], one["logprob"]) for part in parts for one in part["logprobs"]]


async def play(upstream: LocalUpstream, random: Random, rounds: int) -> list[Answer]:
    """Run rounds of turns at once: new conversations, continuations, forks and turns that are cancelled."""
    done: list[Answer] = []

    async def turn(parent: Turn | None, text: str, *, cancelled: bool) -> None:
        if cancelled:
            stream = await begin(upstream, request(text, parent, max_output_tokens=None))
            await first_text(stream)
            await stream.aclose()
        else:
            done.append(await ask(upstream, request(text, parent, **ASKED)))

    for _ in range(rounds):
        known = [answer.turn for answer in done[-8:] if answer.input_tokens < 150]
        parents = [random.choice([None, *known]) for _ in range(random.randint(1, 6))]
        texts = [" ".join(random.choices(WORDS, k=random.choice([1, 5, 30, 50]))) for _ in parents]
        await asyncio.gather(
            *(turn(*both, cancelled=random.random() < 0.2) for both in zip(parents, texts, strict=True))
        )
        if random.random() < 0.2:
            await upstream.evict("host")
    return done


@pytest.mark.untraced
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.deep)])
async def test_every_bit_is_the_same(file: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a context for two or three of many conversations, whose state is kept in small pieces."""
    monkeypatch.setattr(local_model, "_SAVED_PIECE_BYTES", 60_000)
    options: dict[str, Any] = {"context": 320, "kv_bytes": 1, "slots": 12, "threads": 2, "batch_invariant": True}
    async with loaded(ModelFile(file, "tiny", **options)) as upstream:
        done = await play(upstream, Random(seed), 10)
        counts = upstream.counters
        assert min(counts.evictions, counts.restored_tokens, counts.defrags) > 0
        for got in done:
            alone = await ask_alone(upstream, got.turn, request("", **ASKED).settings)
            assert told(got) == told(alone)


async def test_nobody_pays_for_it_who_did_not_ask(file: Path) -> None:
    """Longer steps are computed then, and the answers are answers all the same."""
    async with loaded(ModelFile(file, "tiny", context=320, kv_bytes=1)) as upstream:
        assert upstream.model.batch > 64
        assert all(told(got) for got in await play(upstream, Random(1), 4))
