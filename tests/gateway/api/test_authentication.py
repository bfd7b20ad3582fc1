"""Who gets through to a handler, and as which tenant."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from segue.config import Config, KeyConfig
from segue.gateway.access import LOCAL_TENANT, Access
from segue.gateway.api.authentication import audited, keyed, operators_only, private
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.audit import AuditLog
from segue.gateway.caller_rules import CallerRules
from segue.gateway.connections import AcceptLimits, Connections
from segue.gateway.principal import Principal
from segue.gateway.quotas.concurrency import ConcurrencyLimiter
from segue.gateway.quotas.quotas import Quotas
from segue.gateway.tunnel.session import PRINCIPAL as TUNNEL_PRINCIPAL
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.problems import Problem, Refused

KEY = KeyConfig("alice", "alice", hashlib.sha256(b"sk-alice").hexdigest())
BOBS = KeyConfig("bob", "bob", hashlib.sha256(b"sk-bob").hexdigest())
SIDECARS = {"bob": Principal("bob", "bob", BOBS.sha256), "local": Principal(LOCAL_TENANT)}
BEARER = {"Authorization": "Bearer sk-alice"}


SILENT = AuditLog(None, time.time)
NOBODY = Connections(AcceptLimits(1, 1.0, 1.0), time.monotonic)


def rules(*keys: KeyConfig) -> CallerRules:
    config = Config(key=list(keys))
    return CallerRules(Access(config), ConcurrencyLimiter(Quotas(config), None, time.time), time.time)


class Transport:
    """A connection from `peer`; with a tenant it is one of the tunnel."""

    def __init__(self, peer: str = "127.0.0.1", tenant: str | None = None) -> None:
        self._known = {"peername": (peer, 1), TUNNEL_PRINCIPAL: None if tenant is None else SIDECARS[tenant]}

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._known.get(name, default)


async def tenant_of(request: web.Request) -> web.Response:
    principal = request.get(PRINCIPAL)
    return web.Response(text="nobody" if principal is None else principal.tenant)


def request(headers: dict[str, str] | None = None, transport: Transport | None = None) -> web.Request:
    given = {"Host": "127.0.0.1", **(headers or {})}
    return make_mocked_request("GET", "/", headers=given, transport=transport or Transport())


async def text(answer: web.StreamResponse) -> str:
    assert isinstance(answer, web.Response)
    assert answer.text is not None
    return answer.text


async def test_a_key_leads_to_its_tenant_and_no_key_nowhere() -> None:
    handler = keyed(rules(KEY, BOBS), SILENT, NOBODY, tenant_of)
    assert await text(await handler(request(BEARER))) == "alice"
    with pytest.raises(Refused) as caught:
        await handler(request())
    assert caught.value.problem.code == "invalid_api_key"


async def test_without_keys_everybody_is_the_local_tenant() -> None:
    assert await text(await keyed(rules(), SILENT, NOBODY, tenant_of)(request())) == LOCAL_TENANT


async def test_a_request_through_the_tunnel_has_the_tenant_of_its_sidecar() -> None:
    """Whatever key it carries: that one is for a provider."""
    handler = keyed(rules(KEY, BOBS), SILENT, NOBODY, tenant_of)
    through = Transport(tenant="bob")
    assert await text(await handler(request(BEARER, through))) == "bob"
    with pytest.raises(Refused) as caught:
        await keyed(rules(KEY), SILENT, NOBODY, tenant_of)(request(BEARER, through))
    assert caught.value.problem.code == "invalid_api_key", "the key of the sidecar was revoked meanwhile"
    gone = request(BEARER, through)
    gone.protocol.transport = None
    assert await text(await handler(gone)) == "alice", "its connection is gone"


async def test_a_private_route_is_for_a_key_or_without_keys_for_this_machine() -> None:
    keyed_handler, handler = (
        private(Access(Config(key=[KEY])), time.time, tenant_of),
        private(Access(Config()), time.time, tenant_of),
    )
    elsewhere = Transport("192.0.2.1")
    assert await text(await handler(request())) == "nobody"
    assert await text(await keyed_handler(request(BEARER, elsewhere))) == "nobody"
    for refusing, from_where in ((handler, elsewhere), (keyed_handler, elsewhere), (keyed_handler, Transport())):
        with pytest.raises(Refused) as caught:
            await refusing(request(transport=from_where))
        assert caught.value.problem.code == "forbidden_peer"


async def test_a_route_of_operators_is_for_their_keys() -> None:
    rows = [KEY, msgspec.structs.replace(BOBS, operator=True)]
    handler = operators_only(Access(Config(key=rows)), time.time, tenant_of)
    assert await text(await handler(request({"Authorization": "Bearer sk-bob"}))) == "nobody"
    with pytest.raises(Refused) as caught:
        await handler(request(BEARER))
    assert caught.value.problem.code == "forbidden_peer"


async def test_a_request_through_the_tunnel_is_not_from_this_machine() -> None:
    """Its connection is in this process, but its sidecar may be anywhere."""
    through = Transport(tenant="local")
    with pytest.raises(Refused) as caught:
        await private(Access(Config()), time.time, tenant_of)(request(transport=through))
    assert caught.value.problem.code == "forbidden_peer"
    assert (
        await text(await private(Access(Config(key=[KEY])), time.time, tenant_of)(request(BEARER, through))) == "nobody"
    )


async def test_what_is_done_to_a_response_is_noted_with_its_end(tmp_path: Path) -> None:
    """An id that is none is not written down: it may be anything."""
    file = tmp_path / "audit.jsonl"
    audit = AuditLog(str(file), lambda: 1.0)

    async def refusing(request: web.Request) -> web.Response:
        del request
        raise Refused(Problem("response_not_found", "no"))

    async def failing(request: web.Request) -> web.Response:
        del request
        raise OSError

    ident = new_response_id(bytes(ENTROPY_BYTES), None)
    for handler, response_id, raised in (
        (tenant_of, ident, None),
        (refusing, "\n secret", Refused),
        (failing, ident, OSError),
    ):
        asked = request(BEARER)
        asked.match_info["id"] = response_id
        asked[PRINCIPAL] = Principal("alice", "laptop")
        noting = audited(audit, "read", handler)
        if raised is None:
            await noting(asked)
        else:
            with pytest.raises(raised):
                await noting(asked)
    with pytest.raises(Refused):
        await keyed(rules(KEY), audit, NOBODY, tenant_of)(request())
    audit.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["action"], line.get("response_id"), line.get("status")) for line in lines] == [
        ("read", ident, 200),
        ("read", None, 404),
        ("read", ident, None),
        ("refused_key", None, None),
    ]
    assert lines[0] == {
        "at": 1.0,
        "action": "read",
        "tenant": "alice",
        "key": "laptop",
        "peer": "127.0.0.1",
        "response_id": ident,
        "status": 200,
    }
    assert lines[3]["reason"].startswith("Incorrect API key provided")
