"""The router: the first rule that matches a model's name runs it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given

from segue.upstreams.interface import Secret
from segue.upstreams.router import ModelRule, Router
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
    assert ROUTER.find(model) == expected


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


async def test_what_upstreams_list_is_listed_where_a_glob_lets_clients_name_it() -> None:
    """Each on the upstream that runs it; nothing of one whose models all have another name there."""
    rules = [
        ModelRule(Listed("gpt-5", "gpt-6", "whisper"), ["gpt-*", "own"]),
        ModelRule(Listed("gpt-7", "llama", "llama", "exact"), ["*"]),
        ModelRule(Listed("hidden"), ["hidden"]),
        ModelRule(ScriptedUpstream(), ["s-*"]),
    ]
    assert await Router(rules).discover(None) == ["gpt-5", "gpt-6", "llama", "exact"]
    assert await Router([ModelRule(Listed("a"), ["*"], "other")]).discover(None) == []
    assert await Router([ModelRule(Listed("a"), ["a"]), *rules]).discover(None) == [
        *("gpt-5", "gpt-6", "llama", "exact"),
    ]


async def test_a_resource_name_is_listed_as_the_globs_spell_it() -> None:
    """Gemini lists `models/gemini-…`, and people write `gemini-…`."""
    listed = Listed("models/gemini-3-pro", "models/embed")
    assert await Router([ModelRule(listed, ["gemini-*"])]).discover(None) == ["gemini-3-pro"]
    assert await Router([ModelRule(listed, ["models/g*"])]).discover(None) == ["models/gemini-3-pro"]


async def test_the_clients_own_key_goes_along() -> None:
    router = Router([ModelRule(Listed("a", key="k"), ["*"])])
    assert (await router.discover(None), await router.discover(Secret("k"))) == ([], ["a"])


def test_each_upstream_is_named_once() -> None:
    """Each is started and closed once, however many rules name it."""
    assert ROUTER.upstreams == [ONE, TWO, THREE]


@pytest.mark.parametrize("patterns", [["*"], ["x", "*"], ["?*", ""]])
def test_a_star_takes_every_model(patterns: Sequence[str]) -> None:
    """A star also matches line breaks."""
    router = Router([ModelRule(ONE, patterns)])
    assert [router.find(model) for model in ("x", "a/b:c\n", "")] == [(ONE, "x"), (ONE, "a/b:c\n"), (ONE, "")]


def test_a_router_without_rules_runs_nothing() -> None:
    """It lists nothing either."""
    router = Router([])
    assert (router.find("x"), router.models(), router.upstreams, router.rules) == (None, [], [], ())


def test_rules_are_kept_in_their_order() -> None:
    rules = [ModelRule(ONE, ["a"]), ModelRule(TWO, ["b"])]
    assert Router(rules).rules == tuple(rules)


@given(any_text)
def test_no_model_name_raises(model: str) -> None:
    """A client can send any name."""
    assert ROUTER.find(model) in {None, (ONE, model), (TWO, "the-other"), (ONE, "renamed"), (THREE, model)}
