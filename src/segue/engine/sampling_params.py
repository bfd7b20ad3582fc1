"""What a request may ask of an answer beyond its settings of the API: pure.

`seed` and `stop` are Chat Completions' words. The Responses API has no such fields, but requests may carry fields of
any name, so they come as they were written and are checked here. Not here: what is done about them (`reader`, `model`).
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from segue.protocol.codec import decode
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import OUTPUT_LOGPROBS, Settings

#: How many stops a request may have, and how many characters each.
MOST_STOPS = 4
LONGEST_STOP = 256

T = TypeVar("T")
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Stop = Annotated[str, Meta(min_length=1, max_length=LONGEST_STOP)]
_seeds = msgspec.json.Decoder(_Seed | None)
_stops = msgspec.json.Decoder(_Stop | Annotated[list[_Stop], Meta(max_length=MOST_STOPS)] | None)


class Wishes(msgspec.Struct, frozen=True):
    """The `seed` of what is drawn, None to have one made; the texts that the answer ends before (`stops`); and of how
    many likely tokens the log probability is to be told beside that of each token of the text, None for not even that.
    """

    seed: int | None = None
    stops: tuple[str, ...] = ()
    top_logprobs: int | None = None


NO_WISHES = Wishes()


def read_wishes(settings: Settings) -> Wishes:
    """Return what is asked for. Raises `Refused` if that cannot be."""
    seed = _read(settings, "seed", _seeds, "an integer of 64 bits")
    form = f"a string of 1 to {LONGEST_STOP} characters, or a list of up to {MOST_STOPS} of them"
    stop = _read(settings, "stop", _stops, form)
    scored = settings.top_logprobs > 0 or OUTPUT_LOGPROBS in settings.include
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return Wishes(seed, stops, settings.top_logprobs if scored else None)


def _read(settings: Settings, name: str, decoder: msgspec.json.Decoder[T | None], form: str) -> T | None:
    raw = settings.extra.get(name)
    if raw is None:
        return None
    value = decode(raw, decoder, name)
    if isinstance(value, Problem):
        raise Refused(Problem("invalid_value", f"Invalid value for '{name}': it must be {form}.", name))
    return value
