"""A tenant is erased while its clients are connected: nothing can be continued, and nothing is on the disk."""

from __future__ import annotations

from pathlib import Path

from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream, say
from tests.faults.clients import http
from tests.integration.clients import Socket
from tests.integration.gateway import key

SECRET = "tulips" + " at noon"


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_an_erased_tenant_is_nowhere(tmp_path: Path) -> None:
    """What others have is as it was, and the tenant can begin anew on the same connection."""
    store = f"sqlite:///{tmp_path}/segue.db"
    config = Config(server=ServerConfig(port=0, store=store), key=[key("ann"), key("bob")])
    router = Router([ModelRule(ScriptedUpstream([say(f"I like {SECRET}")] * 20), ["scripted"])])
    async with (
        serving(config, router) as (gateway, url),
        http(url, key="sk-ann") as ann,
        http(url, key="sk-bob") as bob,
        Socket(url, "sk-ann") as lane,
    ):
        made = {}
        for name, client in (("ann", ann), ("bob", bob)):
            status, response = await client.send("POST", "/v1/responses", {"model": "scripted", "input": SECRET})
            made[name] = response["id"]
            assert status == 200
        unstored = await lane.ask(input=SECRET, store=False)
        assert unstored.response is not None
        status, receipt = await ann.send("DELETE", "/segue/tenants/ann")
        assert (status, receipt["responses"]) == (200, 1)
        assert gateway.services.cache.tenant_bytes("ann") == 0
        for previous in (made["ann"], unstored.response["id"]):
            refused = await lane.ask(input="and?", previous_response_id=previous, store=False)
            assert refused.error is not None
            assert refused.error["code"] == "previous_response_not_found"
        anew = await lane.ask(input="hello", store=False)
        assert anew.response is not None
        assert (await bob.send("GET", f"/v1/responses/{made['bob']}"))[0] == 200
        assert (await bob.send("DELETE", "/segue/tenants/bob"))[1]["responses"] == 1
        assert (await gateway.services.store.size()).records == 0
        assert SECRET.encode() not in on_disk(tmp_path)
