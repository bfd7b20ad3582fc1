"""The body of a client of Chat Completions, as an upstream of that API gets it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.chat.passed_request import pass_request
from segue.dialects.provider_profiles import PLAIN, ProviderProfile
from segue.dialects.rules import Preset
from segue.protocol.object_text import ObjectText, read_object
from segue.protocol.requests import NativeBody
from tests.strategies import examples, json_values

Json = dict[str, Any]
TOLD = b'"stream_options":{"include_usage":true}'


def text(body: bytes, **fields: bytes) -> NativeBody:
    read = read_object(body)
    assert isinstance(read, ObjectText)
    return NativeBody(dialect="chat", body=read, fields=fields)


def passed(body: bytes, profile: ProviderProfile = PLAIN, preset: Preset | None = None) -> bytes:
    return pass_request(text(body), "theirs", profile, preset=preset).body


def test_only_what_must_change_does() -> None:
    body = b'{ "messages" : [ {"role":"user", "content":"\\u00e9"} ],"n":1e0, "model":"m",\n"stream":false ,"top_k":3}'
    assert passed(body) == body.replace(b'"m"', b'"theirs"').replace(b"false", b"true").replace(
        b'"top_k":3}', b'"top_k":3,' + TOLD + b"}"
    )


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b"null", b'{"include_usage":true}'),
        (b'{"include_usage":false}', b'{"include_usage":true}'),
        (b'{"include_obfuscation":false}', b'{"include_obfuscation":false,"include_usage":true}'),
    ],
)
def test_the_usage_is_always_asked_for(given: bytes, sent: bytes) -> None:
    body = b'{"model":"m","stream_options":%b,"stream":true}'
    assert passed(body % given) == b'{"model":"theirs","stream_options":%b,"stream":true}' % sent


def test_fields_that_the_door_has_changed_stand_in_place_of_the_clients() -> None:
    body = text(b'{"messages":[1],"model":"m","stream":true}', messages=b"[2]")
    sent = b'{"messages":[2],"model":"theirs","stream":true,' + TOLD + b"}"
    assert pass_request(body, "theirs", PLAIN, preset=None).body == sent


def test_a_provider_that_refuses_the_question_is_not_asked() -> None:
    body = text(b'{"model":"m","stream_options":{"include_usage":true},"stream":true}')
    bare = b'{"model":"theirs","stream":true}'
    refusing = ProviderProfile(omitted_fields=("stream_options",))
    assert pass_request(body, "theirs", refusing, preset=None).body == bare
    asked = pass_request(body, "theirs", PLAIN, preset=None)
    assert asked.own_fields == {"stream_options"}
    again = pass_request(body, "theirs", PLAIN, preset=None, without=asked.own_fields)
    assert (again.body, again.own_fields) == (bare, frozenset())


def test_the_configuration_has_its_fields_and_the_client_its_settings() -> None:
    preset = Preset({"temperature": 0.5, "provider": {"data_collection": "deny"}}, frozenset({"id_slot"}))
    body = b'{"model":"m","temperature":1,"provider":{"data_collection":"allow"},"id_slot":7,"stream":true}'
    assert json.loads(passed(body, preset=preset)) == {
        "model": "theirs",
        "temperature": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "provider": {"data_collection": "deny"},
    }


@given(
    fields=st.dictionaries(st.text(max_size=5), json_values, max_size=5), stream=st.sampled_from([{}, {"stream": 1}])
)
@settings(max_examples=examples(200))
def test_every_other_field_stays(fields: Json, stream: Json) -> None:
    body = json.dumps({"model": "m", **fields, **stream}).encode()
    sent = json.loads(passed(body))
    ours = {"model": "theirs", "stream": True, "stream_options": {"include_usage": True}}
    assert {**sent, **ours} == sent
    assert {name: sent[name] for name in fields if name not in ours} == {
        name: value for name, value in fields.items() if name not in ours
    }
