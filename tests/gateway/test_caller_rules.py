"""The rules that hold for a caller at this moment."""

from __future__ import annotations

import hashlib

import pytest

from segue.config import Config, KeyConfig, LimitsConfig
from segue.gateway.access import Access
from segue.gateway.caller_rules import CallerRules
from segue.gateway.principal import Principal
from segue.gateway.quotas.concurrency import ConcurrencyLimiter
from segue.gateway.quotas.quotas import Quotas
from segue.protocol.problems import Refused

KEY = KeyConfig("k", "a", hashlib.sha256(b"k").hexdigest())


def test_a_key_and_the_limits_are_asked_with_the_present_time() -> None:
    now = 0.0
    config = Config(key=[KEY], limits=LimitsConfig(upload_bytes_per_minute=60))
    rules = CallerRules(Access(config), ConcurrencyLimiter(Quotas(config), None, lambda: now), lambda: now)
    principal = Principal("a", "k", KEY.sha256)
    assert rules.renewed(principal).key == "k"
    rules.check(principal)
    rules.note_upload(principal, 90)
    with pytest.raises(Refused) as over:
        rules.check(principal)
    assert over.value.problem.code == "rate_limit_exceeded"
    now = 31.0
    rules.check(principal)
    rules.access.replace_keys([])
    with pytest.raises(Refused) as revoked:
        rules.renewed(principal)
    assert revoked.value.problem.code == "invalid_api_key"


def test_a_request_without_a_turn_counts_at_the_present_time() -> None:
    now = 0.0
    config = Config(key=[KEY], limits=LimitsConfig(requests_per_minute=1))
    rules = CallerRules(Access(config), ConcurrencyLimiter(Quotas(config), None, lambda: now), lambda: now)
    rules.take_request(Principal("a", "k", KEY.sha256))
    with pytest.raises(Refused):
        rules.take_request(Principal("a", "k", KEY.sha256))
    now = 61.0
    rules.take_request(Principal("a", "k", KEY.sha256))
