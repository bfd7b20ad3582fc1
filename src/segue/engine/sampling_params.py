"""Sampling parameters that the Responses API has no fields for: pure.

`seed` and `stop` are fields of Chat Completions. A request of the Responses API may carry fields of any name, so these
two arrive as raw JSON and are checked here. Not here: how an answer obeys them (`output.answer_reader`, `model`).
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from segue.protocol.codec import decode
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import OUTPUT_LOGPROBS, Settings

#: The most stop sequences of a request, and the most characters of each.
MOST_STOPS = 4
LONGEST_STOP = 256

T = TypeVar("T")
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Stop = Annotated[str, Meta(min_length=1, max_length=LONGEST_STOP)]
_seeds = msgspec.json.Decoder(_Seed | None)
_stops = msgspec.json.Decoder(_Stop | Annotated[list[_Stop], Meta(max_length=MOST_STOPS)] | None)


class SamplingParams(msgspec.Struct, frozen=True):
    """How to sample an answer.

    - `seed`: for random draws; None derives one from the id of the response.
    - `stops`: stop sequences; the answer ends before the first of them.
    - `top_logprobs`: how many of the likeliest tokens to report with each token of the text; None reports no log
      probabilities at all.
    """

    seed: int | None = None
    stops: tuple[str, ...] = ()
    top_logprobs: int | None = None


DEFAULT_SAMPLING_PARAMS = SamplingParams()


def read_sampling_params(settings: Settings) -> SamplingParams:
    """Return the sampling parameters of a request. Raises `Refused` if one is invalid."""
    seed = _read(settings, "seed", _seeds, "an integer of 64 bits")
    form = f"a string of 1 to {LONGEST_STOP} characters, or a list of up to {MOST_STOPS} of them"
    stop = _read(settings, "stop", _stops, form)
    scored = settings.top_logprobs > 0 or OUTPUT_LOGPROBS in settings.include
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return SamplingParams(seed, stops, settings.top_logprobs if scored else None)


def settings_used(settings: Settings, answer_tokens: int) -> Settings:
    """Return the settings with what a request leaves open: greedy sampling, and a limit of the answer."""
    temperature, limit = settings.temperature, settings.max_output_tokens
    if temperature is None and settings.top_p is None:
        temperature = 0.0
    return msgspec.structs.replace(settings, temperature=temperature, max_output_tokens=limit or answer_tokens)


def _read(settings: Settings, name: str, decoder: msgspec.json.Decoder[T | None], form: str) -> T | None:
    raw = settings.extra.get(name)
    if raw is None:
        return None
    value = decode(raw, decoder, name)
    if isinstance(value, Problem):
        raise Refused(Problem("invalid_value", f"Invalid value for '{name}': it must be {form}.", name))
    return value
