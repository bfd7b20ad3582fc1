"""Who may call a server on this machine."""

from __future__ import annotations

import pytest

from segue.http.origins import Denial, OriginPolicy, host_name, is_forwarded, is_from_this_machine, is_loopback


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost.:80", "localhost"),
        ("[::1]:4747", "::1"),
        ("127.0.0.1:", "127.0.0.1"),
        ("a@localhost", ""),
        ("localhost/", ""),
        ("localhost:80:80", ""),
        ("evil.example,localhost", ""),
        ("", ""),
    ],
)
def test_a_host_field_names_a_host_or_nobody(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize("host", ["localhost", "x.localhost", "127.8.9.1", "::1", "[::1]", "LOCALHOST."])
def test_loopback_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("fields", "forwarded"),
    [
        ((), False),
        (("Host", "Accept", "User-Agent", "Forward", "X-Forward", "Sec-Fetch-Site"), False),
        (("Host", "Forwarded"), True),
        (("VIA",), True),
        (("x-real-ip",), True),
        (("X-Forwarded-For",), True),
        (("x-forwarded-proto",), True),
        (("CF-Connecting-IP",), True),
    ],
)
def test_a_proxy_shows_by_the_fields_that_it_adds(fields: tuple[str, ...], *, forwarded: bool) -> None:
    """Whatever they say: a client can write that, but cannot take away what the proxy adds."""
    assert is_forwarded(fields) is forwarded


@pytest.mark.parametrize(
    ("peer", "host", "fields", "expected"),
    [
        ("127.0.0.1", "localhost:4747", ("Host",), True),
        ("::1", "[::1]:4747", (), True),
        (None, "localhost", (), False),
        ("192.0.2.1", "localhost", (), False),
        ("127.0.0.1", "gw.example", (), False),
        ("127.0.0.1", "", (), False),
        ("127.0.0.1", "localhost", ("X-Forwarded-For",), False),
    ],
)
def test_a_request_from_this_machine_has_its_address_and_names_it_and_came_directly(
    peer: str | None, host: str, fields: tuple[str, ...], *, expected: bool
) -> None:
    assert is_from_this_machine(peer, host, fields) is expected


@pytest.mark.parametrize("host", ["", "localhost.example", "10.0.0.1", "::", "127.1"])
def test_names_that_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "origin", "fetch_site", "expected"),
    [
        ("localhost:1", None, None, None),
        ("named.example", None, "none", None),
        ("other.example", None, None, "forbidden_host"),
        ("localhost:1", "http://localhost:1", "cross-site", None),
        ("localhost", "http://localhost:80", None, None),
        ("localhost:1", "http://localhost:2", None, "forbidden_origin"),
        ("localhost:1", "file://localhost:1", None, "forbidden_origin"),
        ("localhost:1", "http://[", None, "forbidden_origin"),
        ("localhost:1", "https://PAGE.example/", None, None),
        ("localhost:1", None, "same-site", "forbidden_origin"),
        ("localhost:1", None, "same-origin", None),
    ],
)
def test_requests_are_judged_by_host_then_by_origin_then_by_site(
    host: str, origin: str | None, fetch_site: str | None, expected: Denial | None
) -> None:
    admission = OriginPolicy(["named.example"], ["https://page.example"])
    assert admission.denial(host, origin=origin, fetch_site=fetch_site) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("127.255.255.255", True),
        ("::1", True),
        ("[::1]", True),
        ("0:0:0:0:0:0:0:1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("localhost.", True),
        ("agent.localhost", True),
        ("", False),
        (".", False),
        ("0.0.0.0", False),  # noqa: S104 - not what is listened on
        ("::", False),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f.0.0.1", False),
        ("0177.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.1:80", False),
        ("127.0.0.1 ", False),
        ("\N{FULLWIDTH DIGIT ONE}27.0.0.1", False),
        ("\ud800", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, *, expected: bool) -> None:
    """Names that merely look like it are not."""
    assert is_loopback(host) is expected


def test_a_good_host_is_remembered_and_no_other() -> None:
    """However many names come, few are kept."""
    policy = OriginPolicy(["*"], [])
    for number in range(200):
        assert policy.denial(f"h{number}.example", origin=None, fetch_site=None) is None
    strict = OriginPolicy(["ours.example"], [])
    for _ in range(2):
        assert strict.denial("ours.example:80", origin=None, fetch_site=None) is None
        assert strict.denial("theirs.example:80", origin=None, fetch_site=None) == "forbidden_host"
        assert strict.denial("ours.example:80", origin=None, fetch_site="cross-site") == "forbidden_origin"
    assert len(policy.remembered) == 64
