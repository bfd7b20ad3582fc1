"""The router: the first rule that matches a model's name runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given

from segue.protocol.problems import Problem
from segue.protocol.requests import Settings
from segue.upstreams.group import GroupState, Member, UpstreamGroup
from segue.upstreams.interface import Secret, Streaming
from segue.upstreams.retries import FailedAttempt
from segue.upstreams.router import ModelRule, Router, Sharing
from segue.upstreams.scripted import ScriptedUpstream
from tests.strategies import any_text

ONE, TWO, THREE = ScriptedUpstream(), ScriptedUpstream(), ScriptedUpstream()
ROUTER = Router(
    [
        ModelRule(ONE, ["gpt-5", "gpt-5-mini"]),
        ModelRule(TWO, ["gpt-*", "gpt-5"], "the-other"),
        ModelRule(ONE, ["o[34]", "llama?", "a.b"], "renamed"),
        ModelRule(THREE, ["smollm2"]),
    ]
)


def found(router: Router, model: str, tenant: str = "ann") -> tuple[Streaming, str] | None:
    """Return what runs a model, and its name for it."""
    one = router.find(model, tenant)
    return None if one is None else (one.runs, one.model)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5", (ONE, "gpt-5")),
        ("gpt-5-mini", (ONE, "gpt-5-mini")),
        ("gpt-5-nano", (TWO, "the-other")),
        ("gpt-", (TWO, "the-other")),
        ("gpt-5\n", (TWO, "the-other")),
        ("o3", (ONE, "renamed")),
        ("llama2", (ONE, "renamed")),
        ("a.b", (ONE, "renamed")),
        ("smollm2", (THREE, "smollm2")),
        ("", None),
        ("o5", None),
        ("llama", None),
        ("a-b", None),
        ("GPT-5", None),
        ("my-gpt-5", None),
        ("smollm2\n", None),
        ("smollm2 ", None),
    ],
)
def test_a_model_runs_on_the_first_upstream_that_answers_to_it(
    model: str, expected: tuple[ScriptedUpstream, str] | None
) -> None:
    """The whole name must match, with its case; `model_as` replaces it."""
    assert found(ROUTER, model) == expected


def test_an_upstream_that_decides_settings_is_found_as_such() -> None:
    """If it alone runs the model: of a group, nobody knows which one will."""

    class Deciding(ScriptedUpstream):
        def settings_used(self, settings: Settings) -> Settings:
            return settings

    deciding, both = Deciding(), Sharing(group="both")
    router = Router(
        [ModelRule(deciding, ["a"]), ModelRule(deciding, ["b"], sharing=both), ModelRule(TWO, ["b"], sharing=both)]
    )
    assert [one and one.tells for one in (router.find("a", "ann"), router.find("b", "ann"))] == [deciding, None]
    assert ROUTER.find("gpt-5", "ann") == (ONE, "gpt-5", (ONE,), None)


def test_only_plain_names_are_listed_each_once() -> None:
    """A client cannot ask for a glob."""
    assert ROUTER.models() == ["gpt-5", "gpt-5-mini", "a.b", "smollm2"]


class Listed(ScriptedUpstream):
    """An upstream that lists these models, to those with this key."""

    def __init__(self, *names: str, key: str | None = None) -> None:
        super().__init__()
        self._names, self._key = names, key

    async def list_models(self, credential: Secret | None) -> Sequence[str]:
        given = None if credential is None else credential.reveal()
        return self._names if self._key in (None, given) else ()


def shared(
    upstream: ScriptedUpstream,
    name: str,
    *models: str,
    model_as: str | None = None,
    **settings: Any,  # noqa: ANN401 - settings of one test
) -> ModelRule:
    return ModelRule(upstream, models or ("m",), model_as, sharing=Sharing(name, **settings))


def test_the_upstreams_of_a_group_run_a_model_together() -> None:
    """Those that the model matches; what comes between them in the file does not."""
    rules = [
        shared(ONE, "one", "m", "n", group="g", weight=2),
        shared(TWO, "two"),
        shared(THREE, "three", "m", group="g", backup=True, model_as="other"),
    ]
    router = Router(rules)
    found = router.find("m", "ann")
    assert found is not None
    assert isinstance(found.runs, UpstreamGroup)
    assert found.runs.members == (Member("one", ONE, None, 2), Member("three", THREE, "other", backup=True))
    assert (found.model, found.upstreams) == ("m", (ONE, THREE))
    assert router.find("m", "bob") == found, "a group is made once"
    assert router.find("n", "ann") == (ONE, "n", (ONE,), None), "no group of one"
    assert dict(router.in_use) == {"one": True, "three": True}


def test_an_upstream_of_some_tenants_is_not_there_for_others() -> None:
    rules = [shared(ONE, "one", "m", "secret", tenants=("ann", "b*")), shared(TWO, "two", "m")]
    router = Router(rules)
    assert [found(router, "m", tenant) for tenant in ("ann", "bob", "carl")] == [(ONE, "m"), (ONE, "m"), (TWO, "m")]
    assert (found(router, "secret", "ann"), found(router, "secret", "carl")) == ((ONE, "secret"), None)
    assert (router.models("ann"), router.models("carl"), router.models()) == (["m", "secret"], ["m"], ["m", "secret"])


async def test_what_an_upstream_lists_is_listed_for_its_tenants() -> None:
    router = Router([ModelRule(Listed("a"), ["*"], sharing=Sharing("one", tenants=("ann",)))])
    assert (await router.discover(None, "ann"), await router.discover(None, "bob")) == (["a"], [])


async def test_what_any_upstream_of_a_group_lists_is_listed() -> None:
    rules = [ModelRule(Listed(name), ["*"], sharing=Sharing(name, group="g")) for name in ("a", "b")]
    assert await Router(rules).discover(None, "ann") == ["a", "b"]


def test_an_upstream_that_is_configured_anew_has_a_clean_record() -> None:
    """One that stays as it is keeps its own."""
    router = Router([shared(ONE, "one", group="g"), shared(TWO, "two", group="g")], GroupState(lambda: 0.0))
    failed = FailedAttempt(Problem("upstream_unreachable", ""), unhealthy=True)
    for name in ("one", "two"):
        for _ in range(3):
            router.state.health.note_failure(name, "m", failed, begun_at=0.0, now=0.0)
    assert dict(router.in_use) == {"one": False, "two": False}
    router.replace([shared(THREE, "one", group="g"), shared(TWO, "two", group="g")])
    assert dict(router.in_use) == {"one": True, "two": False}


async def test_what_upstreams_list_is_listed_where_a_glob_lets_clients_name_it() -> None:
    """Each on the upstream that runs it; nothing of one whose models all have another name there."""
    rules = [
        ModelRule(Listed("gpt-5", "gpt-6", "whisper"), ["gpt-*", "own"]),
        ModelRule(Listed("gpt-7", "llama", "llama", "exact"), ["*"]),
        ModelRule(Listed("hidden"), ["hidden"]),
        ModelRule(ScriptedUpstream(), ["s-*"]),
    ]
    assert await Router(rules).discover(None, "ann") == ["gpt-5", "gpt-6", "llama", "exact"]
    assert await Router([ModelRule(Listed("a"), ["*"], "other")]).discover(None, "ann") == []
    assert await Router([ModelRule(Listed("a"), ["a"]), *rules]).discover(None, "ann") == [
        *("gpt-5", "gpt-6", "llama", "exact"),
    ]


async def test_a_resource_name_is_listed_as_the_globs_spell_it() -> None:
    """Gemini lists `models/gemini-…`, and people write `gemini-…`."""
    listed = Listed("models/gemini-3-pro", "models/embed")
    assert await Router([ModelRule(listed, ["gemini-*"])]).discover(None, "ann") == ["gemini-3-pro"]
    assert await Router([ModelRule(listed, ["models/g*"])]).discover(None, "ann") == ["models/gemini-3-pro"]


async def test_the_clients_own_key_goes_along() -> None:
    router = Router([ModelRule(Listed("a", key="k"), ["*"])])
    assert (await router.discover(None, "ann"), await router.discover(Secret("k"), "ann")) == ([], ["a"])


def test_each_upstream_is_named_once() -> None:
    """Each is started and closed once, however many rules name it."""
    assert ROUTER.upstreams == [ONE, TWO, THREE]


@pytest.mark.parametrize("patterns", [["*"], ["x", "*"], ["?*", ""]])
def test_a_star_takes_every_model(patterns: Sequence[str]) -> None:
    """A star also matches line breaks."""
    router = Router([ModelRule(ONE, patterns)])
    assert [found(router, model) for model in ("x", "a/b:c\n", "")] == [(ONE, "x"), (ONE, "a/b:c\n"), (ONE, "")]


def test_a_router_without_rules_runs_nothing() -> None:
    """It lists nothing either."""
    router = Router([])
    assert (found(router, "x"), router.models(), router.upstreams, router.rules) == (None, [], [], ())


def test_rules_are_kept_in_their_order() -> None:
    rules = [ModelRule(ONE, ["a"]), ModelRule(TWO, ["b"])]
    assert Router(rules).rules == tuple(rules)


@given(any_text)
def test_no_model_name_raises(model: str) -> None:
    """A client can send any name."""
    assert found(ROUTER, model) in {None, (ONE, model), (TWO, "the-other"), (ONE, "renamed"), (THREE, model)}
