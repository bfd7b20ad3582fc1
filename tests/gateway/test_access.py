"""Who may talk to the gateway: names that are ours, pages that are ours, keys, and what only this machine may see."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from multidict import CIMultiDict

from segue.config import CertificateConfig, Config, KeyConfig, ServerConfig
from segue.gateway.access import LOCAL_TENANT, Access
from segue.gateway.client_certificate import ClientCertificate
from segue.gateway.error_mapping import http_reply
from segue.gateway.principal import Principal
from segue.protocol.problems import Problem

#: Header values as the server decodes them: bytes that are no text become lone surrogates.
raw_headers = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))
LOCAL = Access(Config())
NOW = 1_800_000_000.0


def access(host: str = "127.0.0.1", *, hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()) -> Access:
    return Access(Config(server=ServerConfig(host=host, hosts=list(hosts), origins=list(origins)), key=[key("k")]))


def key(secret: str | bytes, tenant: str = "alice") -> KeyConfig:
    data = secret.encode() if isinstance(secret, str) else secret
    return KeyConfig(name=f"key of {tenant}", tenant=tenant, sha256=hashlib.sha256(data).hexdigest())


def headers(**fields: str | None) -> CIMultiDict[str]:
    named = {"host": "127.0.0.1:4747", **fields}
    return CIMultiDict({name.replace("_", "-"): value for name, value in named.items() if value is not None})


def tenant_of(rules: Access, **fields: str | None) -> str | Problem:
    found = rules.principal(headers(**fields), NOW)
    return found if isinstance(found, Problem) else found.tenant


def code_of(problem: Problem | Principal | str | None) -> str | None:
    return problem.code if isinstance(problem, Problem) else None if problem is None else str(problem)


# --------------------------------------------------------------------------------------------------------------- Host

OURS = [
    *("127.0.0.1", "127.0.0.1:4747", "127.0.0.2", "127.0.0.2:80", "[::1]", "[::1]:4747", "localhost", "localhost:4747"),
    *("LOCALHOST", "localhost.", "localhost.:4747", "agent.localhost:4747", "localhost:"),
]
NOT_OURS = [
    *("", "evil.example", "evil.example:4747", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost"),
    *("127.0.0.1.nip.io", "0.0.0.0:4747", "[::]", "10.0.0.1", "192.168.1.2:4747", "128.0.0.1", "0.0.0.1"),
    *("[fe80::1]", "[::ffff:10.0.0.1]", "2130706433", "0x7f.0.0.1", "127.1", ":4747", ".", "[]", "[::1", "::1"),
]
TRICKS = [
    *("127.0.0.1@evil.example", "evil.example@127.0.0.1", "evil.example#127.0.0.1", "127.0.0.1#evil.example"),
    *("evil.example/127.0.0.1", "127.0.0.1/evil.example", "127.0.0.1?evil.example", "evil.example?@127.0.0.1"),
    *("127.0.0.1\\evil.example", "evil.example\\@127.0.0.1", "127.0.0.1,evil.example", "evil.example, 127.0.0.1"),
    *("127.0.0.1 evil.example", "evil.example:80@127.0.0.1", "http://127.0.0.1", "//127.0.0.1", "127.0.0.1%00.evil"),
    *("127.0.0.1\t", "local\thost", "localhost\n", "\N{FULLWIDTH LATIN SMALL LETTER L}ocalhost", "127。0。0。1"),
    *("localhost\udcff", "\udcff", "127.0.0.1%2eevil.example", "[::1]evil.example", "evil.example[::1]"),
]


@pytest.mark.parametrize("host", OURS)
def test_a_request_may_name_this_machine(host: str) -> None:
    """In each way that cannot lead elsewhere."""
    assert LOCAL.refuse_origin(headers(host=host)) is None


@pytest.mark.parametrize("host", [*NOT_OURS, *TRICKS])
def test_a_request_that_names_another_host_is_refused(host: str) -> None:
    """A page whose name was made to resolve to 127.0.0.1 still sends its own."""
    problem = LOCAL.refuse_origin(headers(host=host))
    assert isinstance(problem, Problem)
    assert problem.code == "forbidden_host"
    assert problem.message.endswith("is not served here. Add its name to server.hosts in the configuration.")


def test_a_request_without_a_host_is_refused() -> None:
    """HTTP/1.0 clients must say whom they mean too."""
    assert code_of(LOCAL.refuse_origin(headers(host=None))) == "forbidden_host"


@pytest.mark.parametrize(
    ("configured", "host", "ours"),
    [
        ("gw.example", "gw.example:4747", True),
        ("gw.example", "GW.Example.", True),
        ("GW.example.", "gw.example", True),
        ("gw.example", "api.gw.example", False),
        ("gw.example", "gw.example.evil.example", False),
        ("gw.example", "gw.example@evil.example", False),
        ("10.0.0.1", "10.0.0.1:80", True),
        ("10.0.0.1", "10.0.0.10", False),
        ("fd00::1", "[fd00::1]:4747", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("*", "evil.example", True),
        ("*", "", True),
    ],
)
def test_a_name_is_served_if_it_is_configured_or_bound(configured: str, host: str, *, ours: bool) -> None:
    """And no other; `*` leaves the check to whatever stands in front."""
    assert (access(hosts=(configured,)).refuse_origin(headers(host=host)) is None) is ours
    if configured != "*":
        assert (access(configured).refuse_origin(headers(host=host)) is None) is ours


@pytest.mark.parametrize("host", ["", "evil.example", "evil@x"])
def test_a_gateway_that_is_bound_to_every_address_serves_no_name_for_it(host: str) -> None:
    """An empty bind address is no name."""
    assert code_of(access("").refuse_origin(headers(host=host))) == "forbidden_host"


# ------------------------------------------------------------------------------------------- Origin and Sec-Fetch-Site


@pytest.mark.parametrize(
    ("host", "origin", "ours"),
    [
        ("127.0.0.1:4747", "http://127.0.0.1:4747", True),
        ("127.0.0.1:4747", "HTTP://127.0.0.1:4747", True),
        ("[::1]:4747", "http://[::1]:4747", True),
        ("localhost", "http://localhost", True),
        ("localhost:80", "http://localhost", True),
        ("localhost", "http://localhost:80", True),
        ("localhost", "https://localhost:443", True),
        ("LocalHost:4747", "http://localhost:4747", True),
        ("127.0.0.1:4747", "null", False),
        ("127.0.0.1:4747", "", False),
        ("127.0.0.1:4747", "http://evil.example", False),
        ("127.0.0.1:4747", "http://127.0.0.1", False),
        ("127.0.0.1:4747", "http://127.0.0.1:4748", False),
        ("127.0.0.1:4747", "http://localhost:4747", False),
        ("127.0.0.1:4747", "http://127.0.0.1:4747@evil.example", False),
        ("127.0.0.1:4747", "http://127.0.0.1:4747.evil.example", False),
        ("127.0.0.1:4747", "file://127.0.0.1:4747", False),
        ("127.0.0.1:4747", "chrome-extension://127.0.0.1:4747", False),
        ("127.0.0.1:4747", "127.0.0.1:4747", False),
        ("127.0.0.1:4747", "http://127.0.0.1:99999", False),
        ("127.0.0.1:4747", "http://[::1", False),
        ("127.0.0.1:4747", "http://\udcff", False),
        ("localhost:99999", "http://localhost:99999", False),
        ("localhost:443", "http://localhost", False),
        ("localhost", "https://localhost:80", False),
    ],
)
def test_only_our_own_pages_may_call(host: str, origin: str, *, ours: bool) -> None:
    """The same name and port; a page of another port of this machine is somebody else's."""
    problem = LOCAL.refuse_origin(headers(host=host, origin=origin))
    assert code_of(problem) == (None if ours else "forbidden_origin")


@pytest.mark.parametrize(
    ("configured", "origin", "ours"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://App.example/", "https://app.EXAMPLE", True),
        ("null", "null", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://app.example", "https://app.example.evil.example", False),
        ("*", "https://evil.example", False),
    ],
)
def test_a_page_may_call_if_its_origin_is_configured(configured: str, origin: str, *, ours: bool) -> None:
    """As a whole; there is no wildcard."""
    problem = access(origins=(configured,)).refuse_origin(headers(origin=origin, sec_fetch_site="cross-site"))
    assert code_of(problem) == (None if ours else "forbidden_origin")


@pytest.mark.parametrize(
    ("site", "origin", "expected"),
    [
        (None, None, None),
        ("none", None, None),
        ("same-origin", None, None),
        ("same-site", None, "forbidden_origin"),
        ("cross-site", None, "forbidden_origin"),
        ("same-origin", "http://127.0.0.1:4747", None),
        ("none", "http://evil.example", "forbidden_origin"),
        ("same-origin", "http://evil.example", "forbidden_origin"),
    ],
)
def test_a_browser_says_where_a_request_comes_from_even_without_an_origin(
    site: str | None, origin: str | None, expected: str | None
) -> None:
    """As with an image or a link on somebody else's page; an origin says it more exactly."""
    assert code_of(LOCAL.refuse_origin(headers(sec_fetch_site=site, origin=origin))) == expected


@given(raw_headers, raw_headers | st.none(), raw_headers | st.none())
def test_no_header_raises_and_every_refusal_can_be_sent(host: str, origin: str | None, site: str | None) -> None:
    """Whatever bytes they hold."""
    problem = LOCAL.refuse_origin(headers(host=host, origin=origin, sec_fetch_site=site))
    if problem is not None:
        assert http_reply(problem).status == 403


# --------------------------------------------------------------------------------------------------------------- keys

KEYS = Access(Config(key=[key("first"), key("zweite ü", "bob"), key(b"\xff\xfe", "carol"), key("", "nobody")]))


def test_without_keys_everybody_is_the_local_tenant() -> None:
    """Whatever key they send: SDKs always send one."""
    assert tenant_of(LOCAL) == tenant_of(LOCAL, authorization="Bearer x") == LOCAL_TENANT


@pytest.mark.parametrize(
    ("authorization", "tenant"),
    [
        ("Bearer first", "alice"),
        ("bearer first", "alice"),
        ("BEARER  first ", "alice"),
        ("Bearer zweite ü", "bob"),
        ("Bearer \udcff\udcfe", "carol"),
    ],
)
def test_a_key_leads_to_its_tenant(authorization: str, tenant: str) -> None:
    """By its digest, whatever bytes it is made of."""
    assert tenant_of(KEYS, authorization=authorization) == tenant


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "first", "Basic first", "Token first", "Bearer", "Bearerfirst", "Bearer wrong", "Bearer FIRST"),
        *("Bearer first,", "Bearer firstfirst", "Bearer first first", "Bearer\tfirst", "Bearer \udcff"),
        "Bearer " + hashlib.sha256(b"first").hexdigest(),
    ],
)
def test_a_wrong_key_leads_nowhere(authorization: str | None) -> None:
    """Nor does a right one in the wrong scheme, or its digest."""
    keys = Access(Config(key=[key("first")]))
    message = (
        "Incorrect API key provided. Send a key of this gateway as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
    )
    assert tenant_of(keys, authorization=authorization) == Problem("invalid_api_key", message)


@pytest.mark.parametrize("authorization", ["Bearer first", "Bearer zweite ü", "Bearer wrong", "Basic first", None])
def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, authorization: str | None) -> None:
    """Whichever matches: time must not tell which keys there are."""
    compared: list[str] = []

    def compare(ours: str, theirs: str) -> bool:
        compared.append(theirs)
        return ours == theirs

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = [key("first"), key("zweite ü", "bob"), key("third", "carol")]
    tenant_of(Access(Config(key=keys)), authorization=authorization)
    assert compared == [each.sha256 for each in keys]


@given(raw_headers)
def test_no_key_raises(authorization: str) -> None:
    """Nor is it told what was sent."""
    problem = tenant_of(Access(Config(key=[key("first")])), authorization=authorization)
    assert code_of(problem) == "invalid_api_key"


# ------------------------------------------------------------------------------------------- keys that change or expire


def test_an_expired_key_is_refused_from_that_moment_on() -> None:
    """At the request, at the next turn of a connection, and at an operator's page."""
    expiring = replace(key("k"), expires_at=datetime.fromtimestamp(NOW, UTC))
    rules, asked = Access(Config(key=[expiring])), headers(authorization="Bearer k")
    before = rules.principal(asked, NOW - 1)
    assert isinstance(before, Principal)
    assert rules.renewed(before, NOW - 1) == before
    refused = Problem("invalid_api_key", "This API key has expired. Ask for a new one.")
    assert rules.principal(asked, NOW) == rules.renewed(before, NOW) == refused
    assert rules.refuse_private(asked, "127.0.0.1", NOW - 1) is None
    assert code_of(rules.refuse_private(asked, "127.0.0.1", NOW)) == "forbidden_peer"


def test_what_only_operators_may_see_is_refused_to_the_keys_of_others() -> None:
    rules = Access(Config(key=[key("k"), replace(key("op", "ops"), operator=True)]))
    assert code_of(rules.refuse_others(headers(authorization="Bearer k"), "127.0.0.1", NOW)) == "forbidden_peer"
    assert code_of(rules.refuse_others(headers(), "127.0.0.1", NOW)) == "forbidden_peer"
    assert rules.refuse_others(headers(authorization="Bearer op"), "192.0.2.1", NOW) is None
    assert LOCAL.refuse_others(headers(), "127.0.0.1", NOW) is None, "without keys, this machine is its operator's"
    assert code_of(LOCAL.refuse_others(headers(), "192.0.2.1", NOW)) == "forbidden_peer"


def test_a_connection_learns_what_became_of_its_key() -> None:
    """It was changed, or revoked, or there are keys now where there were none."""
    rules = Access(Config(key=[key("k"), key("other", "bob")]))
    principal = rules.principal(headers(authorization="Bearer k"), NOW)
    assert isinstance(principal, Principal)
    rules.replace_keys([replace(key("k"), models=["small"])])
    assert rules.renewed(principal, NOW) == replace(principal, models=("small",))
    assert code_of(tenant_of(rules, authorization="Bearer other")) == "invalid_api_key"
    rules.replace_keys([key("third")])
    assert code_of(rules.renewed(principal, NOW)) == "invalid_api_key"
    local = LOCAL.principal(headers(), NOW)
    assert isinstance(local, Principal)
    assert LOCAL.renewed(local, NOW) == local
    assert code_of(rules.renewed(local, NOW)) == "invalid_api_key"


# ------------------------------------------------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    ("peer", "host", "authorization", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:4747", None, "forbidden_peer"),
        ("127.0.0.1", "127.0.0.1:4747", "Bearer k", None),
        ("::1", "localhost:4747", None, "forbidden_peer"),
        ("127.0.0.1", "gw.example", None, "forbidden_peer"),
        ("127.0.0.1", "gw.example", "Bearer k", None),
        ("10.0.0.9", "127.0.0.1:4747", None, "forbidden_peer"),
        ("10.0.0.9", "gw.example", "Bearer k", None),
        ("10.0.0.9", "gw.example", "Bearer wrong", "forbidden_peer"),
        (None, "127.0.0.1:4747", None, "forbidden_peer"),
        (None, "127.0.0.1:4747", "Bearer k", None),
        ("127.0.0.1", "127.0.0.1@evil.example", None, "forbidden_peer"),
        ("127.0.0.1", "LOCALHOST.", None, "forbidden_peer"),
        ("::ffff:127.0.0.1", "[::1]:4747", None, "forbidden_peer"),
        ("127.0.0.1", "[::1]:4747", "Bearer wrong", "forbidden_peer"),
    ],
)
def test_with_keys_an_operators_page_is_for_a_key_alone(
    peer: str | None, host: str, authorization: str | None, expected: str | None
) -> None:
    """A proxy on this machine is not this machine, and passes on whatever Host its client has written."""
    asked = headers(host=host, authorization=authorization)
    assert code_of(access(hosts=("gw.example",)).refuse_private(asked, peer, NOW)) == expected


@pytest.mark.parametrize(
    ("peer", "fields", "expected"),
    [
        ("127.0.0.1", {}, None),
        ("::1", {"host": "localhost:4747"}, None),
        ("127.0.0.1", {"host": "127.0.0.1@evil.example"}, "forbidden_peer"),
        ("127.0.0.1", {"x_forwarded_for": "192.0.2.1"}, "forbidden_peer"),
        ("127.0.0.1", {"x_forwarded_host": "gw.example"}, "forbidden_peer"),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, "forbidden_peer"),
        ("127.0.0.1", {"via": "1.1 caddy"}, "forbidden_peer"),
        ("127.0.0.1", {"x_real_ip": "127.0.0.1"}, "forbidden_peer"),
    ],
)
def test_without_keys_a_proxy_that_shows_is_not_this_machine(
    peer: str, fields: dict[str, str], expected: str | None
) -> None:
    """Whatever it says of its client."""
    assert code_of(LOCAL.refuse_private(headers(**fields), peer, NOW)) == expected


@pytest.mark.parametrize("hosts", [("gw.example",), ("*",)])
def test_a_gateway_that_others_have_a_name_for_has_no_operators_page_without_keys(hosts: tuple[str, ...]) -> None:
    """Something on this machine leads others to it, and a loopback Host can be anybody's."""
    rules = Access(Config(server=ServerConfig(hosts=list(hosts))))
    assert code_of(rules.refuse_private(headers(), "127.0.0.1", NOW)) == "forbidden_peer"


def test_without_keys_an_operators_page_is_for_this_machine_alone() -> None:
    """No key opens it then."""
    assert code_of(LOCAL.refuse_private(headers(authorization="Bearer k"), "10.0.0.9", NOW)) == "forbidden_peer"


# ------------------------------------------------------------------------------------- the client's key for a provider

KEYED = access()


def credential_of(rules: Access, **fields: str) -> str | None:
    found = rules.credential(headers(**fields))
    return None if found is None else found.reveal()


def test_a_clients_key_for_a_provider_has_a_header_of_its_own() -> None:
    """With keys of the gateway and without."""
    for rules in (LOCAL, KEYED):
        assert credential_of(rules, x_upstream_key=" sk-1 ", authorization="Bearer k") == "sk-1"


def test_where_the_gateway_has_no_keys_a_clients_key_is_its_providers() -> None:
    """It can mean nothing else; so SDKs need no more than their base URL changed."""
    assert credential_of(LOCAL, authorization="Bearer sk-1") == "sk-1"
    assert credential_of(LOCAL, authorization="bearer  sk-1 ") == "sk-1"


def test_a_key_of_the_gateway_is_not_passed_on() -> None:
    """Whoever has it could use this gateway as that tenant."""
    assert credential_of(KEYED, authorization="Bearer k") is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"x_upstream_key": ""},
        {"x_upstream_key": " "},
        {"x_upstream_key": "\u00e9"},
        {"x_upstream_key": "a\nb"},
        {"x_upstream_key": "\udcff"},
        {"authorization": "Bearer"},
        {"authorization": "Basic eDp5"},
    ],
)
def test_what_is_no_key_is_not_taken_for_one(fields: dict[str, str]) -> None:
    """It could not be sent."""
    assert credential_of(LOCAL, **fields) is None


# ------------------------------------------------------------------------------------------------------- certificates

SHOWN = ClientCertificate("c" * 64, (("commonName", "build"),), frozenset(), NOW + 60)
ROW = CertificateConfig(name="build", tenant="ci", subject={"commonName": "build"}, models=["m"], routes=["/r"])


def with_certificates(*rows: CertificateConfig, keys: tuple[KeyConfig, ...] = ()) -> Access:
    return Access(Config(certificate=list(rows), key=list(keys)))


def test_a_certificate_stands_for_what_its_row_says() -> None:
    rules = with_certificates(ROW)
    found = rules.principal(headers(), NOW, SHOWN)
    assert found == Principal("ci", "build", None, ("m",), ("/r",), SHOWN.expires_at, SHOWN)
    assert isinstance(found, Principal)
    assert rules.renewed(found, NOW) == found
    assert code_of(rules.principal(headers(), NOW)) == "invalid_api_key", "nobody is let in without one"
    assert rules.refuse_private(headers(), "127.0.0.1", NOW) is not None
    assert rules.refuse_private(headers(), None, NOW, certificate=SHOWN) is None
    assert not rules.for_own_user


def test_a_certificate_ends_with_itself_or_before_by_its_row() -> None:
    """A connection that was open before asks in vain afterwards."""
    early = replace(ROW, expires_at=datetime.fromtimestamp(NOW + 5, tz=UTC))
    for row, ends_at in ((ROW, NOW + 60), (early, NOW + 5)):
        rules = with_certificates(row)
        found = rules.principal(headers(), ends_at - 1, SHOWN)
        assert isinstance(found, Principal)
        refused = rules.renewed(found, ends_at)
        assert isinstance(refused, Problem)
        assert refused.message == "This client certificate has expired. Ask for a new one."


def test_the_first_row_that_means_a_certificate_counts_and_a_row_can_be_taken_away() -> None:
    other = CertificateConfig(name="other", tenant="other", sha256=SHOWN.sha256)
    rules = with_certificates(ROW, other)
    found = rules.principal(headers(), NOW, SHOWN)
    assert isinstance(found, Principal)
    assert found.tenant == "ci"
    rules.replace_keys([], [other])
    moved = rules.renewed(found, NOW)
    assert isinstance(moved, Principal)
    assert moved.tenant == "other"
    rules.replace_keys([key("k")])
    assert code_of(rules.renewed(found, NOW)) == "invalid_api_key"


def test_a_key_that_is_ours_wins_and_another_does_no_harm() -> None:
    rules = with_certificates(ROW, keys=(key("k"),))
    for sent, tenant in (("k", "alice"), ("unused", "ci"), ("", "ci")):
        found = rules.principal(headers(authorization=f"Bearer {sent}"), NOW, SHOWN)
        assert isinstance(found, Principal)
        assert found.tenant == tenant
    assert rules.credential(headers(authorization="Bearer unused")) is None, "it is not for a provider"


def test_only_who_is_called_an_operator_is_one() -> None:
    """By key or certificate; who uses a gateway without keys has it to himself."""
    operators = with_certificates(replace(ROW, operator=True), keys=(replace(key("k"), operator=True), key("other")))
    sent = {secret: operators.principal(headers(authorization=f"Bearer {secret}"), NOW) for secret in ("k", "other")}
    sent |= {"certificate": operators.principal(headers(), NOW, SHOWN), "nobody": Access(Config()).principal({}, NOW)}
    found = {name: isinstance(one, Principal) and one.operator for name, one in sent.items()}
    assert found == {"k": True, "other": False, "certificate": True, "nobody": True}
    plain = with_certificates(ROW).principal(headers(), NOW, SHOWN)
    assert isinstance(plain, Principal)
    assert not plain.operator
