"""The request of a client of Chat Completions on its way to a provider of that API: its own bytes, with little changed.

The upstream has its own name for the model, and the stream that is read tells the usage. Not here: what a request may
ask for at all (`door_request`), and requests that are written anew (`request`).
"""

from __future__ import annotations

import msgspec

from segue.dialects.interface import NOTHING, Rendered
from segue.dialects.passed_on import passed_on
from segue.dialects.provider_profiles import ProviderProfile
from segue.dialects.rules import Preset
from segue.protocol.codec import encode
from segue.protocol.requests import NativeBody

_OPTIONS = "stream_options"
#: Settings of this API: of these, a client's own stays, whatever the configuration adds to other requests.
_SETTINGS = frozenset(
    {
        *("messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "verbosity"),
        *("max_tokens", "max_completion_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty"),
        *("logprobs", "top_logprobs", "reasoning_effort", "seed", "stop", "user", "service_tier", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    }
)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def pass_request(
    native: NativeBody,
    model: str,
    profile: ProviderProfile,
    *,
    preset: Preset | None,
    without: frozenset[str] = NOTHING,
) -> Rendered:
    """Return a client's body as the upstream gets it. `without` are fields of our own that it has refused."""
    body, fields = native.body, {"model": encode(model), "stream": b"true", **native.fields}
    if _OPTIONS in without or _OPTIONS in profile.omitted_fields:
        return passed_on(body, fields, preset=preset, known=_SETTINGS, without=frozenset({_OPTIONS}))
    given = body.value(_OPTIONS)
    options = None if given is None else _objects.decode(given)  # the door has read it
    fields[_OPTIONS] = encode({**(options or {}), "include_usage": True})
    passed = passed_on(body, fields, preset=preset, known=_SETTINGS)
    return msgspec.structs.replace(passed, own_fields=frozenset({_OPTIONS}))
