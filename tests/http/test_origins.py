"""Who may call a server on this machine."""

from __future__ import annotations

import pytest

from segue.http.origins import Admission, Denial, host_name, is_loopback


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
    admission = Admission(["named.example"], ["https://page.example"])
    assert admission.denial(host, origin=origin, fetch_site=fetch_site) == expected
