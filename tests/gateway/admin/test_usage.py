"""A caller sees what its own key and its tenant have used, and what is left."""

from __future__ import annotations

import hashlib
import json

from segue.config import Config, KeyConfig, LimitsConfig
from segue.gateway.admin.usage import UsageRoutes
from segue.gateway.principal import Principal
from segue.gateway.quotas.quotas import Quotas
from segue.protocol.responses import usage


def routes() -> tuple[UsageRoutes, Quotas]:
    key = KeyConfig("laptop", "a", hashlib.sha256(b"k").hexdigest(), limits=LimitsConfig(requests_per_minute=10))
    quotas = Quotas(Config(key=[key], limits=LimitsConfig(tokens_per_minute=1000, turns=3)))
    return UsageRoutes(quotas, lambda: 100.0, 50.0), quotas


async def test_what_was_used_and_what_is_left() -> None:
    shown, quotas = routes()
    laptop, phone = Principal("a", "laptop"), Principal("a", "phone")
    quotas.end(quotas.begin(laptop, 100.0), usage(100, 20, cached=60), 100.0, model="m")
    quotas.begin(phone, 100.0)
    quotas.note_upload(laptop, 5000, 100.0)
    reply = await shown.show(laptop)
    assert isinstance(reply.body, bytes)
    assert reply.headers["Cache-Control"] == "no-store"
    told = json.loads(reply.body)
    assert (told["tenant"], told["key"], told["since"]) == ("a", "laptop", 50.0)
    key, tenant = told["of_key"], told["of_tenant"]
    assert key["used"] == {
        "turns": 1,
        "refused": 0,
        "upload_bytes": 5000,
        "input_tokens": 100,
        "cached_tokens": 60,
        "output_tokens": 20,
    }
    assert (key["running"], key["remaining"]) == (0, {"requests": 9})
    assert (tenant["used"]["turns"], tenant["running"], tenant["remaining"]) == (2, 1, {"tokens": 880})
    assert tenant["limits"]["turns"] == 3
    assert told["models"] == {"m": {"turns": 1, "input_tokens": 100, "cached_tokens": 60, "output_tokens": 20}}


def test_without_keys_there_is_the_tenant_alone() -> None:
    report = routes()[0].report(Principal("local"))
    assert (report.key, report.of_key, report.of_tenant.used.turns) == (None, None, 0)
