"""The URL of what gateways share: what it may be, what is said of one that is wrong, and that no password is shown."""

from __future__ import annotations

import pytest

from segue.stores.live.live_url import Address, LiveUrl, check_live_url, is_shared, parse_live_url, redact_live_url


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://h", LiveUrl(kind="single", addresses=[Address("h", 6379)])),
        ("valkey://h:1/2", LiveUrl(kind="single", addresses=[Address("h", 1)], db=2)),
        (
            "rediss://u:p%40@h?prefix=a.b-c",
            LiveUrl(
                kind="single", addresses=[Address("h", 6379)], tls=True, username="u", password="p@", prefix="a.b-c"
            ),
        ),
        ("redis://:p@h", LiveUrl(kind="single", addresses=[Address("h", 6379)], password="p")),
        ("unix:///run/r%20s?db=3", LiveUrl(kind="single", path="/run/r s", db=3)),
        ("unix://u:p@/r", LiveUrl(kind="single", path="/r", username="u", password="p")),
        (
            "rediss+sentinel://:p@a,[::1]:2/main/4",
            LiveUrl(
                kind="sentinel",
                addresses=[Address("a", 26379), Address("::1", 2)],
                primary="main",
                db=4,
                tls=True,
                password="p",
            ),
        ),
        (
            "redis+cluster://[::1],[fe80::1]:2",
            LiveUrl(kind="cluster", addresses=[Address("::1", 6379), Address("fe80::1", 2)]),
        ),
        ("valkeys+cluster://a:1,b", LiveUrl(kind="cluster", addresses=[Address("a", 1), Address("b", 6379)], tls=True)),
    ],
)
def test_a_url_says_where_redis_is(url: str, meant: LiveUrl) -> None:
    check_live_url(url)
    assert is_shared(url)
    assert parse_live_url(url) == meant


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "another kind"),
        ("http://h", "another kind"),
        ("redis://", "a host is missing"),
        ("redis://a,b", "several servers"),
        ("redis://a:x", "a port is a number"),
        ("redis://a:99999", "a port is a number"),
        ("redis://a/x", "a database is a number"),
        ("redis://a/1/2", "one database"),
        ("redis://a/0#f", "a fragment"),
        ("redis://a?db=1", "'db' is no option"),
        ("redis://a?prefix=", "a prefix has"),
        ("redis://a?&&", "cannot be read"),
        ("redis+cluster://a/1", "no databases"),
        ("redis+sentinel://a", "name of the primary"),
        ("unix://h/r", "no socket"),
        ("unix:", "no socket"),
        ("redis://[::1", "an IPv6 address"),
        ("redis://[no]", "an IPv6 address"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_live_url(url)


def test_memory_is_not_shared() -> None:
    assert not is_shared("memory:")
    check_live_url("memory:")


@pytest.mark.parametrize("url", ["redis://u:s@cret@h/x", "unix://:s@cret@/r?x=1", "redis+cluster://:s@cret@h/1"])
def test_no_password_is_shown(url: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is looked at
        parse_live_url(url)
    assert "cret" not in str(caught.value)
    assert redact_live_url(url).startswith(url.partition("://")[0] + "://(set)@")
    assert "cret" not in redact_live_url(url)
    assert redact_live_url("redis://h") == "redis://h"
    assert "cret" not in repr(LiveUrl(kind="single", path="/r", password="s@cret"))
