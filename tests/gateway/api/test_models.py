"""The list of models: the names of the configuration, since a pattern cannot be asked for, and what upstreams list."""

from __future__ import annotations

import json

from aiohttp.test_utils import make_mocked_request

from segue.gateway.api.models import ModelRoutes
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.principal import Principal
from segue.protocol.capabilities import HEADER
from tests.gateway.parts import Clock, parts


async def test_the_list_has_the_names_of_models_and_the_capabilities_header() -> None:
    clock = Clock()
    async with parts(models=["one", "two", "g-*"], clock=clock) as services:
        request = make_mocked_request("GET", "/v1/models")
        request[PRINCIPAL] = Principal("alice")
        reply = await ModelRoutes(services).list(request)
        assert isinstance(reply.body, bytes)
        rows = [
            {"id": name, "object": "model", "created": int(clock.now), "owned_by": "segue"} for name in ("one", "two")
        ]
        assert json.loads(reply.body) == {"object": "list", "data": rows}
        assert HEADER in reply.headers
