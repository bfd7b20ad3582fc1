"""Which API a request is of."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from segue.gateway.api.client_api import is_from_anthropics_client, is_of_messages_api, turn_at

VERSION = {"Anthropic-Version": "2023-06-01"}


@pytest.mark.parametrize(
    ("headers", "anthropics"),
    [
        ({}, False),
        ({"Authorization": "Bearer k"}, False),
        ({"Authorization": "Bearer k", "X-Api-Key": "k"}, False),
        ({"X-Api-Key": "k"}, True),
        (VERSION, True),
        ({"Authorization": "Bearer k", **VERSION}, True),
    ],
)
def test_who_is_a_client_of_anthropics(headers: dict[str, str], anthropics: bool) -> None:
    assert is_from_anthropics_client(CIMultiDict(headers)) is anthropics


@pytest.mark.parametrize(
    ("path", "headers", "messages"),
    [
        ("/v1/messages", {}, True),
        ("/v1/messages/count_tokens", {}, True),
        ("/v1/messages2", VERSION, False),
        ("/v1/models", {}, False),
        ("/v1/models", VERSION, True),
        ("/v1/models/org/one", VERSION, True),
        ("/v1/responses", VERSION, False),
        ("/v1/chat/completions", {"X-Api-Key": "k"}, False),
    ],
)
def test_what_is_of_the_messages_api(path: str, headers: dict[str, str], messages: bool) -> None:
    assert is_of_messages_api(path, CIMultiDict(headers)) is messages


def test_what_has_a_model_write_costs_something() -> None:
    """Asking for a summary does; looking at what there is does not."""
    begun = [path for path in ("/v1/responses", "/v1/responses/compact", "/v1/models") if turn_at("POST", path)]
    assert begun == ["/v1/responses", "/v1/responses/compact"]
    assert turn_at("GET", "/v1/responses/compact") is None
