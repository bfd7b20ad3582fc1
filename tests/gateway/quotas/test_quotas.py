"""What a key and its tenant may use: each turn must be within both, and nobody uses up what is another's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.config import Config, KeyConfig, LimitsConfig, TenantConfig
from segue.gateway.principal import Principal
from segue.gateway.quotas.quotas import MOST_MODELS, OTHER_MODELS, ModelCounts, Quotas, Scope
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import usage

ALICE, HER_PHONE, BOB = (Principal(tenant, key) for tenant, key in (("a", "laptop"), ("a", "phone"), ("b", "bob")))


def quotas(
    each: LimitsConfig | None = None, *, alice: LimitsConfig | None = None, laptop: LimitsConfig | None = None
) -> Quotas:
    return Quotas(config(each, alice=alice, laptop=laptop))


def config(
    each: LimitsConfig | None = None, *, alice: LimitsConfig | None = None, laptop: LimitsConfig | None = None
) -> Config:
    key = KeyConfig("laptop", "a", hashlib.sha256(b"k").hexdigest(), limits=laptop or LimitsConfig())
    tenants = [] if alice is None else [TenantConfig("a", alice)]
    return Config(limits=each or LimitsConfig(), tenant=tenants, key=[key])


def problem_of(rules: Quotas, principal: Principal, now: float = 0.0) -> Problem:
    with pytest.raises(Refused) as caught:
        rules.begin(principal, now)
    return caught.value.problem


def run(rules: Quotas, principal: Principal, tokens: int = 0, now: float = 0.0) -> None:
    rules.end(rules.begin(principal, now), usage(tokens, 0), now)


def test_without_limits_everything_is_counted_and_nothing_refused() -> None:
    rules = quotas()
    for _ in range(1000):
        run(rules, ALICE, tokens=10**6)
    rules.note_upload(ALICE, 10**12, 0.0)
    counts = {(tenant, key): scope.counts for tenant, key, scope in rules.counted()}
    assert counts.keys() == {("a", "laptop"), ("a", None)}
    assert counts["a", "laptop"] == counts["a", None]
    assert counts["a", None].turns == 1000
    assert counts["a", None].input_tokens == 10**9
    assert counts["a", None].upload_bytes == 10**12


def test_a_key_that_is_over_its_rate_is_told_when_it_may_come_back() -> None:
    rules = quotas(laptop=LimitsConfig(requests_per_minute=2), alice=LimitsConfig(tokens_per_minute=100))
    run(rules, ALICE)
    run(rules, ALICE, tokens=10)
    problem = problem_of(rules, ALICE)
    assert problem.code == "rate_limit_exceeded"
    assert problem.message == "Rate limit reached for this key: 2 requests per minute. Try again in 30s."
    assert problem.retry_after_s == pytest.approx(30)
    assert problem.headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "90",
        "x-ratelimit-reset-tokens": "6s",
    }
    run(rules, HER_PHONE)
    run(rules, BOB)
    run(rules, ALICE, now=30.0)


def test_a_request_without_a_turn_counts_in_its_minute() -> None:
    """As one that begins a turn does, and with the same refusal; it is none of the turns that are under way."""
    rules = quotas(laptop=LimitsConfig(requests_per_minute=2, turns=1))
    rules.take_request(ALICE, 0.0)
    scopes = rules.begin(ALICE, 0.0)
    assert [scope.counts.turns for scope in scopes] == [1, 1]
    with pytest.raises(Refused, match="2 requests per minute"):
        rules.take_request(ALICE, 0.0)
    rules.take_request(HER_PHONE, 0.0)
    rules.take_request(ALICE, 30.0)


def test_tokens_are_counted_when_a_turn_is_over_and_a_debt_is_waited_off() -> None:
    rules = quotas(LimitsConfig(tokens_per_minute=100))
    run(rules, ALICE, tokens=250)
    problem = problem_of(rules, HER_PHONE)
    assert problem.message == "Rate limit reached for this tenant: 100 tokens per minute. Try again in 1m31s."
    run(rules, BOB, tokens=250)
    run(rules, HER_PHONE, now=91.0)


def test_uploads_are_counted_in_bytes() -> None:
    rules = quotas(LimitsConfig(upload_bytes_per_minute=1000))
    rules.note_upload(ALICE, 1500, 0.0)
    problem = problem_of(rules, ALICE)
    assert "1000 upload bytes per minute" in problem.message
    assert problem.headers is not None
    assert problem.headers["x-ratelimit-remaining-upload-bytes"] == "0"
    run(rules, BOB)


def test_so_many_turns_run_at_once() -> None:
    rules = quotas(LimitsConfig(turns=2), laptop=LimitsConfig(turns=1))
    first = rules.begin(ALICE, 0.0)
    assert problem_of(rules, ALICE).message.startswith("1 turns are under way, the most for this key at once")
    second = rules.begin(HER_PHONE, 0.0)
    assert "the most for this tenant" in problem_of(rules, HER_PHONE).message
    rules.check(ALICE, 0.0)  # before a request is read: it may repeat a turn that runs, and begin none
    rules.begin(BOB, 0.0)
    rules.end(first, None, 0.0)
    rules.end(rules.begin(ALICE, 0.0), None, 0.0)
    rules.end(second, None, 0.0)


def test_so_many_connections_are_open_at_once() -> None:
    rules = quotas(LimitsConfig(connections=2), laptop=LimitsConfig(connections=1))
    with rules.connected(ALICE), rules.connected(HER_PHONE), rules.connected(BOB):
        for principal, whose in ((ALICE, "this key"), (HER_PHONE, "this tenant")):
            with (
                pytest.raises(Refused, match=f"connections are open, the most for {whose}"),
                rules.connected(principal),
            ):
                pass
    with rules.connected(ALICE):
        pass


def test_a_refused_turn_takes_nothing() -> None:
    rules = quotas(LimitsConfig(requests_per_minute=1), laptop=LimitsConfig(requests_per_minute=60))
    run(rules, ALICE)
    for _ in range(100):
        problem_of(rules, ALICE)
    run(rules, ALICE, now=60.0)
    tenant = next(scope for _, key, scope in rules.counted() if key is None)
    assert (tenant.counts.turns, tenant.counts.refused) == (2, 100)


def test_other_limits_hold_from_now_on_and_what_was_used_stays_used() -> None:
    rules = quotas(LimitsConfig(requests_per_minute=1, turns=5))
    run(rules, ALICE)
    rules.replace(config(LimitsConfig(requests_per_minute=1, turns=9)))
    problem_of(rules, ALICE)
    rules.replace(config(LimitsConfig(requests_per_minute=1), alice=LimitsConfig()))
    run(rules, ALICE)


@given(
    st.lists(st.tuples(st.sampled_from([ALICE, HER_PHONE, BOB]), st.booleans(), st.integers(0, 500)), max_size=40),
    st.integers(1, 5),
    st.integers(1, 20),
)
def test_a_neighbour_is_judged_by_its_own_use_alone(
    steps: Sequence[tuple[Principal, bool, int]], turns: int, requests: int
) -> None:
    """What Bob may do is the same whether Alice is there or not."""
    limits = LimitsConfig(turns=turns, requests_per_minute=requests, tokens_per_minute=300)
    together, alone = quotas(limits), quotas(limits)
    outcomes: dict[int, list[bool]] = {id(together): [], id(alone): []}
    for rules in (together, alone):
        running: list[Sequence[Scope]] = []
        for at, (principal, ends, tokens) in enumerate(steps):
            if rules is alone and principal is not BOB:
                continue
            try:
                begun = rules.begin(principal, float(at))
            except Refused:
                outcome = False
            else:
                outcome = True
                if ends or principal is not BOB:
                    rules.end(begun, usage(tokens, 1), float(at))
                else:
                    running.append(begun)
            if principal is BOB:
                outcomes[id(rules)].append(outcome)
    assert outcomes[id(together)] == outcomes[id(alone)]


def test_turns_are_counted_by_model_for_each_key() -> None:
    """Once: in the scope of the key, and in that of the tenant if there is no key."""
    rules = quotas()
    for principal in (ALICE, Principal("c")):
        for tokens in (5, 7):
            rules.end(rules.begin(principal, 0.0), usage(tokens, 1, cached=2), 0.0, model="m")
        rules.end(rules.begin(principal, 0.0), None, 0.0, model="n")
        rules.end(rules.begin(principal, 0.0), None, 0.0)
    models = {(tenant, key): scope.models for tenant, key, scope in rules.counted()}
    expected = {"m": ModelCounts(2, 12, 4, 2), "n": ModelCounts(1)}
    assert models == {("a", "laptop"): expected, ("a", None): {}, ("c", None): expected}


def test_names_of_models_that_clients_choose_do_not_fill_the_memory() -> None:
    rules = quotas()
    for number in range(1000):
        rules.end(rules.begin(ALICE, 0.0), None, 0.0, model=f"m{number}")
    (scope,) = (scope for _, key, scope in rules.counted() if key is not None)
    assert len(scope.models) == MOST_MODELS + 1
    assert scope.models[OTHER_MODELS].turns == 1000 - MOST_MODELS
