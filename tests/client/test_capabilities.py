"""What a client reads of a server's capabilities, from our gateway's own words and from hostile ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client.capabilities import (
    MAX_OBJECT_BYTES,
    OPENAI_SERVICE,
    PLAIN_SERVER,
    ServerCapabilities,
    documented_capabilities,
    read_capabilities_header,
    read_capabilities_object,
)
from segue.protocol.capabilities import AdvertisedLimits, Capabilities, capabilities_header, encode_capabilities
from segue.protocol.lanes import LaneBounds
from tests.strategies import examples

ADVERTISED = Capabilities(
    version="1",
    epoch="0af5",
    profile="openai",
    limits=AdvertisedLimits(
        lanes=32,
        in_flight=16,
        queued=64,
        message_bytes=16777216,
        connection_age_s=3600.0,
        connection_idle_s=600.0,
        retention_s=2592000.0,
        events_s=600.0,
        resume_s=60.0,
        grace_s=0.0,
    ),
    extensions=("lanes", "warm_up", "background", "resume", "idempotency"),
)
READ = ServerCapabilities(
    extensions=frozenset(ADVERTISED.extensions),
    lanes=LaneBounds(32, 16),
    epoch="0af5",
    connection_age_s=3600.0,
    connection_idle_s=600.0,
    message_bytes=16777216,
    events_s=600.0,
    resume_s=60.0,
)


def test_our_gateways_words_are_understood_in_both_forms() -> None:
    assert read_capabilities_header(capabilities_header(ADVERTISED)) == READ
    assert read_capabilities_object(encode_capabilities(ADVERTISED)) == READ


def test_services_are_known_by_their_host() -> None:
    assert documented_capabilities("api.openai.com") is OPENAI_SERVICE
    assert documented_capabilities("api.openai.com.example.com") is PLAIN_SERVER
    assert OPENAI_SERVICE.offers("lanes")
    assert not PLAIN_SERVER.offers("lanes")


@pytest.mark.parametrize("header", ["a=", "x" * 100_000, "epoch=\x00"])
def test_a_header_that_is_no_dictionary_says_nothing(header: str) -> None:
    assert read_capabilities_header(header) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"object":"other"}',
        b"\xff",
        b'{"object":"segue.capabilities"}' + b" " * MAX_OBJECT_BYTES,
    ],
)
def test_another_object_says_nothing(data: bytes) -> None:
    assert read_capabilities_object(data) is None


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("", PLAIN_SERVER),
        ("new_thing=7, extensions=(teleport)", ServerCapabilities(extensions=frozenset({"teleport"}))),
        ("extensions=lanes", PLAIN_SERVER),
        ("extensions=(lanes 1 ?1)", ServerCapabilities(extensions=frozenset({"lanes"}))),
        ("lanes=4, in_flight=2", PLAIN_SERVER),
        ("lanes=0, in_flight=2, extensions=(lanes)", ServerCapabilities(extensions=frozenset({"lanes"}))),
        (
            "lanes=999999999999999, in_flight=0.5, extensions=(lanes)",
            ServerCapabilities(extensions=frozenset({"lanes"}), lanes=LaneBounds(1024, 1)),
        ),
        (f'epoch="{"e" * 129}"', PLAIN_SERVER),
        ('epoch=""', PLAIN_SERVER),
        ("epoch=7", PLAIN_SERVER),
        ("connection_age_s=0, resume_s=-1, grace_s=?1, message_bytes=x", PLAIN_SERVER),
    ],
)
def test_what_makes_no_sense_counts_as_absent(header: str, read: ServerCapabilities) -> None:
    assert read_capabilities_header(header) == read


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from([*msgspec.structs.asdict(ADVERTISED.limits), "epoch", "limits", "extensions"])


@given(st.dictionaries(_names, _json), st.dictionaries(_names, _json) | _json)
@settings(max_examples=examples(500))
def test_no_object_is_stumbled_over(found: dict[str, Any], limits: object) -> None:
    data = msgspec.json.encode({**found, "limits": limits, "object": "segue.capabilities"})
    read = read_capabilities_object(data)
    if read is not None:  # a document that is too large
        assert read.connection_age_s is None or read.connection_age_s > 0
        assert read.lanes.in_flight >= 1
