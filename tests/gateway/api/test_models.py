"""The list of models: the names of the configuration, since a pattern cannot be asked for, and what upstreams list."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from segue.gateway.api.models import ModelRoutes
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.principal import Principal
from segue.protocol.capabilities import HEADER
from segue.protocol.problems import Refused
from tests.gateway.parts import Clock, parts

MODELS = ["one", "two", "g-*", "org/three"]


def request(path: str, ident: str | None = None, models: tuple[str, ...] = ("*",), **headers: str) -> web.Request:
    lines = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    match = {} if ident is None else {"id": ident}
    made = make_mocked_request("GET", path, headers=lines, match_info=match)
    made[PRINCIPAL] = Principal("alice", models=models)
    return made


def read(reply: web.Response) -> dict[str, Any]:
    assert isinstance(reply.body, bytes)
    assert HEADER in reply.headers
    body: dict[str, Any] = json.loads(reply.body)
    return body


async def test_the_list_has_the_names_of_models() -> None:
    clock = Clock()
    async with parts(models=MODELS, clock=clock) as services:
        body = read(await ModelRoutes(services).list(request("/v1/models")))
    rows = [
        {"id": name, "object": "model", "created": int(clock.now), "owned_by": "segue"}
        for name in ("one", "two", "org/three")
    ]
    assert body == {"object": "list", "data": rows}


async def test_clients_of_anthropics_api_get_pages() -> None:
    async with parts(models=MODELS) as services:
        routes = ModelRoutes(services)
        first = read(await routes.list(request("/v1/models?limit=2", anthropic_version="2023-06-01")))
        assert [model["id"] for model in first["data"]] == ["one", "two"]
        assert (first["has_more"], first["first_id"], first["last_id"]) == (True, "one", "two")
        rest = read(await routes.list(request("/v1/models?after_id=two", x_api_key="k")))
        assert [model["type"] for model in rest["data"]] == ["model"]
        with pytest.raises(Refused) as refused:
            await routes.list(request("/v1/models?limit=0", anthropic_version="2023-06-01"))
        assert refused.value.problem.param == "limit"


async def test_a_model_that_a_request_may_ask_for_is_there() -> None:
    async with parts(models=MODELS) as services:
        routes = ModelRoutes(services)
        for name in ("one", "org/three", "g-1"):
            assert read(await routes.retrieve(request(f"/v1/models/{name}", name)))["object"] == "model"
            found = read(await routes.retrieve(request(f"/v1/models/{name}", name, anthropic_version="2023-06-01")))
            assert (found["id"], found["type"]) == (name, "model")


@pytest.mark.parametrize("name", ["three", "two"])
async def test_a_model_that_is_not_for_a_key_looks_like_none(name: str) -> None:
    async with parts(models=MODELS) as services:
        with pytest.raises(Refused) as refused:
            await ModelRoutes(services).retrieve(request(f"/v1/models/{name}", name, models=("one",)))
    assert refused.value.problem.code == "model_not_found"
