"""What a gateway says about itself: the object and the header say the same."""

from __future__ import annotations

import json

from segue.protocol.capabilities import (
    AdvertisedLimits,
    Capabilities,
    capabilities_header,
    encode_capabilities,
    extensions,
)
from segue.protocol.lanes import BOUNDS

LIMITS = AdvertisedLimits(
    lanes=32,
    in_flight=16,
    queued=64,
    message_bytes=1024,
    connection_age_s=3600.0,
    connection_idle_s=0.5,
    retention_s=60.0,
    events_s=600.0,
    resume_s=60.0,
    grace_s=0.0,
)
CAPABILITIES = Capabilities(
    version="1", epoch="0f1e", profile="openai", limits=LIMITS, extensions=extensions(BOUNDS["openai"], 0)
)


def test_the_object_has_every_limit_under_its_name() -> None:
    """And what it is."""
    shown = json.loads(encode_capabilities(CAPABILITIES))
    assert (shown["object"], shown["version"], shown["profile"]) == ("segue.capabilities", "1", "openai")
    assert shown["epoch"] == "0f1e"
    assert shown["limits"].keys() == set(AdvertisedLimits.__struct_fields__)
    assert shown["extensions"] == list(CAPABILITIES.extensions)


def test_the_header_is_a_dictionary_of_the_same() -> None:
    """RFC 9651: a string, tokens, integers, decimals and an inner list; no more than three digits after the point."""
    limits = "lanes=32, in_flight=16, queued=64, message_bytes=1024"
    times = "connection_age_s=3600.000, connection_idle_s=0.500, retention_s=60.000"
    kept = "events_s=600.000, resume_s=60.000, grace_s=0.000"
    offered = "extensions=(lanes warm_up cancel background resume idempotency epoch lean compact lists)"
    assert capabilities_header(CAPABILITIES) == f'epoch="0f1e", profile=openai, {limits}, {times}, {kept}, {offered}'


def test_only_what_is_configured_is_offered() -> None:
    """Without lanes, everything else; the grace only where there is one."""
    offered = extensions(BOUNDS["openai"], 0)
    assert [one for one in offered if one != "lanes"] == list(extensions(BOUNDS["serial"], 0))
    assert (*offered, "grace") == extensions(BOUNDS["openai"], 1)


def test_the_extensions_by_name() -> None:
    always = ("warm_up", "cancel", "background", "resume", "idempotency", "epoch", "lean", "compact", "lists")
    assert extensions(BOUNDS["serial"], 0.0) == always
    assert extensions(BOUNDS["openai"], 0.0) == ("lanes", *always)
    assert extensions(BOUNDS["openai"], 0.5) == ("lanes", *always, "grace")
