"""What a request may ask of an answer of the local model: log probabilities, a seed, and stops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from math import exp
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Raw

from segue.engine.model import LoadedModel
from segue.engine.output.logprobs import Score
from segue.engine.sampling_params import LONGEST_STOP, SamplingParams, read_sampling_params, settings_used
from segue.engine.upstream import LocalUpstream
from segue.protocol.items import user_message
from segue.protocol.problems import Refused
from segue.protocol.requests import OUTPUT_LOGPROBS, Settings
from tests.engine.turns import Answer, ask, ask_alone, cell_bytes, request, tiny

Json = dict[str, Any]
SCORED: Json = {"include": (OUTPUT_LOGPROBS,), "top_logprobs": 20}


def extra(**fields: object) -> Json:
    return {"extra": {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}}


def sampling_params(**fields: Any) -> SamplingParams:  # noqa: ANN401 - fields of Settings
    return read_sampling_params(Settings(model="m", **fields))


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({}, SamplingParams()),
        (extra(seed=7, other=[1]), SamplingParams(seed=7)),
        (extra(seed=-1, stop="END"), SamplingParams(seed=-1, stops=("END",))),
        (extra(stop=["a", "b" * LONGEST_STOP, "€", "\n"]), SamplingParams(stops=("a", "b" * LONGEST_STOP, "€", "\n"))),
        (extra(stop=[]), SamplingParams()),
        (extra(stop=None, seed=None), SamplingParams()),
        ({"include": (OUTPUT_LOGPROBS,)}, SamplingParams(top_logprobs=0)),
        ({"top_logprobs": 2}, SamplingParams(top_logprobs=2)),
        (SCORED, SamplingParams(top_logprobs=20)),
        ({"include": ("reasoning.encrypted_content",)}, SamplingParams()),
    ],
)
def test_what_is_asked_for(fields: Json, read: SamplingParams) -> None:
    assert sampling_params(**fields) == read


@pytest.mark.parametrize("value", ["7", 7.5, True, [7], 2**63, -(2**63) - 1, 10**40])
def test_a_seed_is_an_integer(value: object) -> None:
    with pytest.raises(Refused) as caught:
        sampling_params(**extra(seed=value))
    assert (caught.value.problem.code, caught.value.problem.param) == ("invalid_value", "seed")
    assert "'seed'" in caught.value.problem.message


@pytest.mark.parametrize(
    "value", ["", 5, [""], ["a"] * 5, "a" * (LONGEST_STOP + 1), [["a"]], {"a": "b"}, [None], False]
)
def test_a_stop_is_a_text_or_a_few(value: object) -> None:
    with pytest.raises(Refused) as caught:
        sampling_params(**extra(stop=value))
    assert (caught.value.problem.code, caught.value.problem.param) == ("invalid_value", "stop")
    assert "up to 4" in caught.value.problem.message


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[LocalUpstream]:
    async with tiny(kv_bytes=4096 * cell_bytes()) as upstream:
        yield upstream


def scores(answer: Answer) -> list[Json]:
    """The log probabilities of an answer's text, which are those of its deltas and exactly of this text."""
    (message,) = [item for item in answer.items if item["type"] == "message"]
    (part,) = message["content"]
    assert b"".join(bytes(one["bytes"]) for one in part["logprobs"]) == answer.text.encode()
    found: list[Json] = part["logprobs"]
    return found


def same(some: list[Json], others: list[Json]) -> bool:
    """The same tokens, as likely to the last bit."""
    return [(one["bytes"], one["logprob"]) for one in some] == [(one["bytes"], one["logprob"]) for one in others]


@pytest.mark.local_engine
@pytest.mark.asyncio(loop_scope="module")
class TestLogprobs:
    @pytest.mark.untraced
    async def test_they_are_of_the_text(self, upstream: LocalUpstream) -> None:
        """The likeliest token is the one that was taken; what is listed is a part of a distribution."""
        for name in ("one", "two", "hello there"):
            asked = request(name, max_output_tokens=24)
            plain, got = await ask(upstream, asked), await ask(upstream, request(name, max_output_tokens=24, **SCORED))
            assert got.text == plain.text
            told = scores(got)
            assert len(told) > 15
            for one in told:
                top = one["top_logprobs"]
                assert len(top) == 20
                assert (one["token"], one["logprob"]) == (top[0]["token"], top[0]["logprob"])
                assert sum(exp(other["logprob"]) for other in top) <= 1 + 1e-9
                assert [other["logprob"] for other in top] == sorted((o["logprob"] for o in top), reverse=True)

    async def test_those_of_the_pieces_are_those_of_the_text(self, upstream: LocalUpstream) -> None:
        """Each piece of the stream has exactly its own."""
        asked = request("pieces", max_output_tokens=24, **SCORED)
        batches = [batch async for batch in upstream.stream(asked)]
        events = [json.loads(event.data) for batch in batches for event in batch if hasattr(event, "data")]
        pieces = [event for event in events if event["type"] == "response.output_text.delta"]
        for piece in pieces:
            assert b"".join(bytes(one["bytes"]) for one in piece["logprobs"]) == piece["delta"].encode()
        (done,) = [event for event in events if event["type"] == "response.output_text.done"]
        (part,) = [event["part"] for event in events if event["type"] == "response.content_part.done"]
        told = [one for piece in pieces for one in piece["logprobs"]]
        assert told == done["logprobs"] == part["logprobs"]
        assert told

    async def test_continued_and_whole_are_the_same(self, upstream: LocalUpstream) -> None:
        """Whether the state was there or was computed again."""
        first = await ask(upstream, request("many words about people", **SCORED))
        second = await ask(upstream, request("go on", first.turn, **SCORED))
        items = [*first.turn.input, *first.turn.output, user_message("go on")]
        replayed = await ask(upstream, request(items, **SCORED))
        alone = await ask_alone(upstream, second.turn, request("", **SCORED).settings)
        assert second.cached > 20
        assert replayed.input_tokens - replayed.cached == 1
        assert same(scores(second), scores(replayed))
        assert same(scores(second), scores(alone))

    async def test_they_are_the_models_own(self, upstream: LocalUpstream) -> None:
        """A temperature, a penalty or a grammar takes another token, and changes nothing of what is told."""
        plain = scores(await ask(upstream, request("own", **SCORED)))
        hot = scores(await ask(upstream, request("own", temperature=2.0, **extra(seed=3), **SCORED)))
        form = {"format": {"type": "json_object"}}
        held = scores(await ask(upstream, request("own", text=form, **SCORED)))
        assert plain[0]["token"] != held[0]["token"]
        assert same(plain[0]["top_logprobs"], hot[0]["top_logprobs"])
        assert same(plain[0]["top_logprobs"], held[0]["top_logprobs"])
        assert held[0]["logprob"] < plain[0]["logprob"]

    async def test_without_a_number_there_are_those_of_the_text_alone(self, upstream: LocalUpstream) -> None:
        told = scores(await ask(upstream, request("alone", include=(OUTPUT_LOGPROBS,))))
        assert told
        assert all(one["top_logprobs"] == [] and one["logprob"] < 0 for one in told)

    async def test_unasked_nothing_is_computed(self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
        """And of a call, no more than what might have become text."""
        scored: list[int] = []
        score = LoadedModel.score

        def watched(model: LoadedModel, index: int, token: int, top: int) -> Score:
            scored.append(token)
            return score(model, index, token, top)

        monkeypatch.setattr(LoadedModel, "score", watched)
        plain = await ask(upstream, request("plain"))
        assert not scored
        assert plain.items[0]["content"][0]["logprobs"] == []
        tool = {"type": "function", "name": "look", "parameters": {"type": "object", "additionalProperties": False}}
        fields: Json = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
        called = await ask(upstream, request("call", max_output_tokens=60, **fields, **SCORED))
        (call,) = called.items
        assert (call["type"], call["status"]) == ("function_call", "completed")
        assert len(scored) <= len("<tool_call>")


@pytest.mark.local_engine
@pytest.mark.asyncio(loop_scope="module")
class TestSeed:
    async def test_a_seed_draws_the_same_again(self, upstream: LocalUpstream) -> None:
        """Whatever the response's id; another seed, or none, draws something else."""

        async def drawn(**fields: object) -> str:
            return (await ask(upstream, request("draw", temperature=1.5, max_output_tokens=12, **extra(**fields)))).text

        seven = [await drawn(seed=7), await drawn(seed=7)]
        others = [await drawn(seed=seed) for seed in (8, -1, 2**32 - 1)]
        assert seven[0] == seven[1]
        assert len({seven[0], *others, await drawn(), await drawn()}) > 4
        assert await drawn(seed=2**32 - 1) == others[2], "not the number that stands for any seed"

    async def test_without_chance_a_seed_changes_nothing(self, upstream: LocalUpstream) -> None:
        plain = await ask(upstream, request("sure"))
        assert (await ask(upstream, request("sure", **extra(seed=7)))).text == plain.text


@pytest.mark.local_engine
@pytest.mark.asyncio(loop_scope="module")
class TestStop:
    async def test_the_answer_ends_before_it(self, upstream: LocalUpstream) -> None:
        """Also within a token; it is complete, all that was sampled is counted, and it is continued like any other."""
        plain = await ask(upstream, request("stop here", max_output_tokens=24))
        for at in (0, 5, 17):
            word = plain.text[at : at + 3]
            asked = request("stop here", max_output_tokens=24, **extra(stop=["never", word]), **SCORED)
            got = await ask(upstream, asked)
            assert got.text == plain.text[: plain.text.index(word)]
            assert got.finished.status == "completed"
            assert [item["status"] for item in got.items] == ["completed"]
            counted, whole = got.finished.head.usage, plain.finished.head.usage
            assert counted is not None
            assert whole is not None
            assert 0 < counted.output_tokens < whole.output_tokens
            if got.text:
                scores(got)
            again = await ask(upstream, request("and", got.turn))
            assert again.cached >= got.input_tokens - 1
            alone = await ask_alone(upstream, again.turn, request("").settings)
            assert (alone.text, alone.input_tokens) == (again.text, again.input_tokens)

    async def test_what_only_looked_like_one_is_text(self, upstream: LocalUpstream) -> None:
        """An answer that is cut gives out what it held back, and is incomplete as before."""
        plain = await ask(upstream, request("cut"))
        got = await ask(upstream, request("cut", **extra(stop=plain.text[-2:] + "never")))
        assert (got.text, got.finished.status) == (plain.text, "incomplete")

    async def test_one_in_what_might_have_become_a_call(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is found when the answer is cut there, and then the answer is complete after all."""
        tokens = iter(upstream.model.tokenize("a<", control=False))

        class Writing:
            def sample(self, index: int) -> int:
                return next(tokens)

        monkeypatch.setattr(LoadedModel, "sampler", lambda *given: Writing())
        tool = {"type": "function", "name": "look", "parameters": {"type": "object", "additionalProperties": False}}
        got = await ask(upstream, request("x", tools=[tool], max_output_tokens=2, **extra(stop="<"), **SCORED))
        assert (got.text, got.finished.status, len(scores(got))) == ("a", "completed", 1)

    async def test_wrong_ones_are_refused(self, upstream: LocalUpstream) -> None:
        for fields in (extra(stop=""), extra(seed="7")):
            with pytest.raises(Refused):
                await anext(upstream.stream(request("x", **fields)))


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ({}, (0.0, None, 2048)),
        ({"temperature": 0.7}, (0.7, None, 2048)),
        ({"top_p": 0.5}, (None, 0.5, 2048)),
        ({"max_output_tokens": 9000}, (0.0, None, 9000)),
    ],
)
def test_what_a_request_leaves_open_is_decided(
    asked: dict[str, Any], used: tuple[float | None, float | None, int]
) -> None:
    """The likeliest tokens, unless it asks for random ones; and an end."""
    settings = settings_used(Settings(model="tiny", **asked), 2048)
    assert (settings.temperature, settings.top_p, settings.max_output_tokens) == used
