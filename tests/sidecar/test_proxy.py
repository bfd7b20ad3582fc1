"""The proxy on the way to gateways: how it is written, and what is reached without it."""

from __future__ import annotations

import pytest
from hypothesis import given

from segue.sidecar.proxy import Proxy, is_proxied, parse_proxy
from tests.strategies import any_text


@pytest.mark.parametrize(
    ("text", "url", "authorization"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", None),
        ("HTTP://proxy.example/", "http://proxy.example:80", None),
        ("proxy:3128", "http://proxy:3128", None),
        (" [::1]:3128 ", "http://[::1]:3128", None),
        ("http://alice:p%40ss@proxy:1", "http://proxy:1", "Basic YWxpY2U6cEBzcw=="),
        ("alice@proxy:1", "http://proxy:1", "Basic YWxpY2U6"),
    ],
)
def test_a_proxy_is_an_address_and_its_credentials_apart(text: str, url: str, authorization: str | None) -> None:
    proxy = parse_proxy(text, "x")
    assert proxy == Proxy(url=url, authorization=authorization, no_proxy="x")
    assert proxy.headers == ({} if authorization is None else {"Proxy-Authorization": authorization})


@pytest.mark.parametrize(
    "text",
    [
        "socks5://alice:hunter2@proxy:1080",
        "https://alice:hunter2@proxy:1",
        "http://alice:hunter2@",
        "http://alice:hunter2@proxy:99999",
        "http://alice:hunter2@[::1",
        "http://alice:hunter2@pro xy",
        "http://alice:hunter2@pro\u2100xy",
    ],
)
def test_what_cannot_be_used_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="proxy") as caught:
        parse_proxy(text)
    assert "hunter2" not in str(caught.value)


@given(any_text)
def test_whatever_is_written_there_is_a_proxy_or_refused(text: str) -> None:
    try:
        proxy = parse_proxy(text, text)
    except ValueError:
        return
    assert proxy.url.isprintable()
    assert "@" not in proxy.url
    proxy.leads_to("wss://gateway.example.com/segue/tunnel")


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("wss://gateway.example.com/", "", True),
        ("ws://gateway.example.com/", "", False),
        ("wss://gateway.example.com/", "*", False),
        ("wss://gateway.example.com/", "other, example.com", False),
        ("wss://Gateway.EXAMPLE.com./", "x .example.com", False),
        ("wss://gateway.example.com/", "*.example.com", False),
        ("wss://gateway.example.com/", "GATEWAY.example.com.", False),
        ("wss://gateway.example.com/", "way.example.com,com.", False),
        ("wss://gateway.example.com/", "way.example.com", True),
        ("wss://gateway.example.com/", "example.com:443", False),
        ("wss://gateway.example.com:8443/", "example.com:443", True),
        ("wss://gateway.example.com/", ",., :443", True),
        ("wss://10.1.2.3/", "10.0.0.0/8", False),
        ("wss://10.1.2.3/", "10.1.2.4", True),
        ("wss://10.1.2.3:8443/", "10.1.2.3:8443", False),
        ("wss://[fd00::1]/", "fd00::/8", False),
        ("wss://[::1]/", "::1", False),
        ("wss://[::1]:8443/", "[::1]:8443", False),
        ("wss://[::1]/", "127.0.0.1,localhost", True),
    ],
)
def test_only_gateways_with_tls_are_behind_it_and_none_that_no_proxy_names(
    url: str, no_proxy: str, *, proxied: bool
) -> None:
    assert is_proxied(url, no_proxy) == proxied
