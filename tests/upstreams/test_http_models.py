"""The models that a provider lists: what it is asked, and what it may answer."""

from __future__ import annotations

import pytest

from segue.upstreams import http, model_listing
from segue.upstreams.interface import Secret
from tests.loop_clock import LoopClock
from tests.upstreams.http_turns import ANSWERS, answer, upstream
from tests.upstreams.provider import Exchange, Play, hangs, providing, refuses, resets

MODELS = {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}


async def test_it_is_asked_with_the_gateways_key_and_its_headers() -> None:
    """And once, however often the list is wanted."""
    lists = refuses(200, MODELS)
    async with (
        providing(lists) as provider,
        upstream(f"{provider.url}/v1/", "secret", headers=(("X-Title", "t"), ("Accept", "x"))) as one,
    ):
        assert [await one.list_models(key) for key in (None, Secret("mine"))] == [("a", "b")] * 2
        (got,) = provider.got
        assert (got.method, got.target, got.body) == ("GET", "/v1/models", b"")
        assert (got.headers["authorization"], got.headers["x-title"]) == ("Bearer secret", "t")
        assert (got.headers["accept"], got.headers["accept-encoding"]) == ("application/json", "identity")


async def test_with_pass_key_each_client_is_shown_what_its_own_key_may_see() -> None:
    async def by_key(exchange: Exchange) -> None:
        names = [{"id": exchange.got.headers["authorization"].removeprefix("Bearer ")}]
        await refuses(200, {"data": names})(exchange)

    async with providing(by_key) as provider, upstream(provider.url, pass_key=True) as one:
        seen = [await one.list_models(key) for key in (None, Secret("x"), Secret("y"), Secret("x"), None)]
        assert seen == [(), ("x",), ("y",), ("x",), ()]
        assert len(provider.got) == 2


async def large(exchange: Exchange) -> None:
    await exchange.head(content_type="application/json")
    await exchange.chunk(b'{"data":[{"id":"a"}],"more":"' + b"x" * 4096 + b'"}')
    await exchange.end()


@pytest.mark.parametrize(
    "play",
    [
        refuses(401, {"error": {"message": "No key."}}),
        refuses(404),
        refuses(302, location="/elsewhere"),
        refuses(200, {"models": []}),
        refuses(200, b"<html>"),
        resets,
        large,
    ],
)
async def test_a_provider_that_does_not_list_its_models_has_none(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its turns run all the same."""
    monkeypatch.setattr(http, "_MAX_LIST_BYTES", 1024)
    async with providing(play, ANSWERS) as provider, upstream(provider.url) as one:
        assert await one.list_models(None) == ()
        assert (await answer(one))[0] == "Hello"
        assert [got.target for got in provider.got if got.method == "POST"] == ["/ask/m"]


async def test_one_that_is_not_there_has_none_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with providing(ANSWERS) as provider:
        gone = provider.url
    async with upstream(gone) as one:
        assert await one.list_models(None) == ()
        [told] = [line for line in caplog.messages if "action=list_models" in line]
    assert told.startswith(f"action=list_models upstream={one.name} failed='")
    assert "refuse" in told


async def test_a_key_that_may_not_list_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with providing(refuses(401)) as provider, upstream(provider.url) as one:
        assert await one.list_models(None) == ()
        assert f"action=list_models upstream={one.name} failed='status 401'" in caplog.messages


async def test_one_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with providing(hangs) as provider, upstream(provider.url) as one:
        assert await clock.outlast(one.list_models(None), http._LIST_TIMEOUT_S, after=provider.seen(1)) == ()  # noqa: SLF001 - how long it waits
        await provider.until(lambda: provider.gone == 1)


async def test_closing_breaks_off_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_listing, "WAIT_S", 0.0)
    async with providing(hangs) as provider:
        async with upstream(provider.url) as one:
            assert await one.list_models(None) == ()
            await provider.until(lambda: len(provider.got) == 1)
        await provider.until(lambda: provider.gone == 1)


async def test_a_name_that_holds_a_part_of_a_key_is_not_listed() -> None:
    names = [{"id": name} for name in ("a", "org/sk-proj-qrst****ghjk", "sk-proj-qrst1234uvwx", "b")]
    listed = refuses(200, {"data": names})
    async with providing(listed) as provider, upstream(provider.url, "sk-proj-qrst1234uvwx5678ghjk") as one:
        assert await one.list_models(None) == ("a", "b")
