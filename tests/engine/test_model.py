"""A loaded model by itself: what it takes, the template it uses, and its state in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segue.engine import ModelFile, Unavailable
from segue.engine import model as local_model
from segue.engine.kv.defrag import Move
from segue.engine.model import BatchEntry, LoadedModel
from segue.engine.prompt.messages import PromptMessage
from segue.protocol.requests import Settings
from segue.testing.tiny_model import CHAT_TEMPLATE, TinyModelShape, write_tiny_model
from tests.engine.turns import cell_bytes

pytestmark = pytest.mark.local_engine

WIDE_HEADS = TinyModelShape(head=64)
#: More tokens than a step has, so that they are computed in several.
TOKENS = [20 + number % 200 for number in range(100)]


@contextmanager
def loaded(folder: Path, shape: TinyModelShape | None = None, **options: Any) -> Iterator[LoadedModel]:  # noqa: ANN401 - fields of ModelFile
    file = folder / "tiny.gguf"
    write_tiny_model(file, shape)
    model = LoadedModel(
        ModelFile(file, context=512, threads=1, kv_bytes=1, slots=8, **{"batch_invariant": True, **options})
    )
    try:
        yield model
    finally:
        model.close()


def read(model: LoadedModel, slot: int, tokens: list[int]) -> None:
    for at in range(0, len(tokens), model.batch):
        model.compute([BatchEntry(slot, tokens[at : at + model.batch], at, sampled=False)])


def answer(model: LoadedModel, slot: int, length: int) -> list[int]:
    """What the model says behind the first `length` tokens."""
    sampler = model.sampler(Settings(model="tiny"), 1)
    said = [3]
    for at in range(length, length + 12):
        (end,) = model.compute([BatchEntry(slot, said[-1:], at, sampled=True)])
        said.append(sampler.sample(end))
    return said


@pytest.mark.parametrize("shape", [TinyModelShape(), WIDE_HEADS])
def test_a_token_takes_what_is_reckoned(tmp_path: Path, shape: TinyModelShape) -> None:
    """Also where heads are not the usual part of the width, as in Gemma and Qwen; a few bytes say which token it is."""
    with loaded(tmp_path, shape) as model:
        read(model, 0, TOKENS)
        (one,), (two,) = model.save(0, 98, 99), model.save(0, 98, 100)
        assert model.cell_bytes == cell_bytes(shape)
        assert 0 <= len(two) - len(one) - model.cell_bytes < 40


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_state_in_pieces_is_the_same_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """However it is cut, in another slot, and with something else in between."""
    monkeypatch.setattr(local_model, "_SAVED_PIECE_BYTES", -(-len(TOKENS) // pieces) * cell_bytes())
    with loaded(tmp_path) as model:
        read(model, 0, TOKENS)
        state = model.save(0, 0, len(TOKENS))
        said = answer(model, 0, len(TOKENS))
        assert len(state) == pieces
        model.clear(0)
        read(model, 1, TOKENS[:50])
        assert model.restore(2, state, len(TOKENS))
        assert answer(model, 2, len(TOKENS)) == said
        assert not model.restore(3, [state[0][:-1]], len(TOKENS)), "what is damaged is told"


@pytest.mark.parametrize("divisible", [True, False])
def test_no_state_is_restored_too(tmp_path: Path, divisible: bool) -> None:
    """As that of a turn that had to give way before anything was computed of it, also of a model with one state."""
    with loaded(tmp_path) as model:
        model.divisible = divisible
        assert model.restore(0, (), 0)
        read(model, 0, TOKENS)


def test_what_is_moved_together_says_the_same(tmp_path: Path) -> None:
    """A sequence, a copy of its beginning that went on, and one that stands between: all go on as before."""
    with loaded(tmp_path) as model:
        read(model, 0, TOKENS)
        read(model, 1, TOKENS[50:])
        model.copy(0, 2, 60)
        model.compute([BatchEntry(2, TOKENS[:5], 60, sampled=False)])
        lengths = {0: 100, 1: 50, 2: 65}
        said = {slot: answer(model, slot, length) for slot, length in lengths.items()}
        for slot, length in lengths.items():
            model.rewind(slot, length)
        before = model.room
        model.defrag([Move(0, 100), Move(1, 50), Move(2, 65, 0, 60)])
        assert model.room == before + 3 * 12, "what was given back is free"
        assert {slot: answer(model, slot, length) for slot, length in lengths.items()} == said


def test_a_sampler_that_is_made_anew_goes_on(tmp_path: Path) -> None:
    """As it is when a call begins: what was said before counts for penalties, and is not drawn again."""
    asked = Settings(model="tiny", frequency_penalty=2.0, presence_penalty=2.0)

    def say(model: LoadedModel, *, anew: bool) -> list[int]:
        sampler, said = model.sampler(asked, 1), [3]
        for at in range(40):
            (end,) = model.compute([BatchEntry(0, said[-1:], at, sampled=True)])
            said.append(sampler.sample(end))
            if anew and at % 8 == 0:
                sampler = model.sampler(asked, 1, None, said[1:])
        model.clear_all()
        return said

    with loaded(tmp_path) as model:
        assert say(model, anew=True) == say(model, anew=False)


#: Words of any letters, as many as one likes; the grammar allows an end behind each.
WORDS = 'start: "<" /[a-z]+/ (" " /[a-z]+/)* ">"\n'


@pytest.mark.untraced
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 1.5},
        {"top_p": 0.5},
        {"temperature": 0.8, "presence_penalty": 1.5},
        {"frequency_penalty": 2.0},
    ],
)
def test_whatever_samples_keeps_to_the_grammar(tmp_path: Path, fields: dict[str, Any]) -> None:
    """In the same way each time, wherever the sampler was made anew; a step may compute others beside it."""
    asked = Settings(model="tiny", **fields)

    def say(model: LoadedModel, *, beside: bool) -> list[int]:
        matcher = model.compile_grammar(WORDS).begin()
        sampler, said = model.sampler(asked, 7, matcher), [3]
        for at in range(30):
            entries = [BatchEntry(0, said[-1:], at, sampled=True)]
            entries += [BatchEntry(1, [20 + at], at, sampled=True)] if beside else []
            said.append(sampler.sample(model.compute(entries)[0]))
            if at % 9 == 0:
                sampler = model.sampler(asked, 7, matcher, said[1:])
            if model.is_end_of_answer(said[-1]):
                break
        model.clear_all()
        return said[1:]

    with loaded(tmp_path) as model:
        tokens = say(model, beside=False)
        text = b"".join(map(model.piece, tokens)).decode()
        assert re.match(r"<[a-z]+( [a-z]*)*>?", text)
        assert (text[-1] == ">") is model.is_end_of_answer(tokens[-1])
        assert say(model, beside=False) == tokens
        assert say(model, beside=True) == tokens


def test_greedy_sampling_takes_the_likeliest_allowed_token(tmp_path: Path) -> None:
    """Whether the model would have taken it anyway, which is tried first, or not."""
    with loaded(tmp_path) as model:
        (end,) = model.compute([BatchEntry(0, [3], 0, sampled=True)])
        free = model.sampler(Settings(model="tiny"), 1).sample(end)
        anything = model.compile_grammar("start: /(?s:.)*/\n").begin()
        assert model.sampler(Settings(model="tiny"), 1, anything).sample(end) == free
        scores = {token: model.score(end, token, 0).logprob for token in model.tokenize("abcdefgh", control=False)}
        likeliest = max(scores, key=scores.__getitem__)
        grammar = model.compile_grammar("start: /[abcdefgh]/\n").begin()
        assert model.sampler(Settings(model="tiny"), 1, grammar).sample(end) == likeliest


def test_another_template(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text(CHAT_TEMPLATE.replace("You are a tiny model.", "You are something else."))
    with loaded(tmp_path, template=path) as model:
        assert "something else" in model.template.segments([PromptMessage("user", "a")])[0].text


def test_a_template_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"chat template .* cannot be read"), loaded(tmp_path, template=tmp_path):
        pass
