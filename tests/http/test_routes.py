"""Routes: where a request goes, what is refused, and that no request ever chooses its host."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segue.http.routes import (
    BUILT_IN,
    SELF,
    Resolved,
    Route,
    RouteError,
    RouteRefusal,
    RouteTable,
    Target,
    parse_target,
    route_table,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A `[[route]]`, as the configuration has it."""

    mount: str | None = None
    path: str | None = None
    target: str = "https://t.example"


def table(*rows: Entry) -> RouteTable:
    return route_table(rows)


def resolved(routes: RouteTable, target: bytes) -> Resolved:
    found = routes.resolve(target)
    assert isinstance(found, Resolved), found
    return found


def refused(routes: RouteTable, target: bytes) -> RouteRefusal:
    found = routes.resolve(target)
    assert isinstance(found, RouteRefusal), found
    return found


# ------------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("url", "expected", "authority"),
    [
        ("https://api.example", Target(scheme="https", host="api.example", port=443), b"api.example"),
        ("https://api.example/", Target(scheme="https", host="api.example", port=443), b"api.example"),
        ("http://api.example", Target(scheme="http", host="api.example", port=80), b"api.example"),
        ("http://api.example:443", Target(scheme="http", host="api.example", port=443), b"api.example:443"),
        ("https://api.example:443", Target(scheme="https", host="api.example", port=443), b"api.example"),
        ("HTTPS://API.example:8443", Target(scheme="https", host="api.example", port=8443), b"api.example:8443"),
        ("http://127.0.0.1:80", Target(scheme="http", host="127.0.0.1", port=80), b"127.0.0.1"),
        ("http://[::1]:8080", Target(scheme="http", host="::1", port=8080), b"[::1]:8080"),
        ("http://[0:0::1]", Target(scheme="http", host="::1", port=80), b"[::1]"),
        (
            "http://a_b.internal/v1/",
            Target(scheme="http", host="a_b.internal", port=80, prefix=b"/v1"),
            b"a_b.internal",
        ),
        (
            "https://h/a%2Fb/m@1",
            Target(scheme="https", host="h", port=443, prefix=b"/a%2Fb/m@1"),
            b"h",
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: Target, authority: bytes) -> None:
    """Its path is kept as it is written, without a slash at the end."""
    assert parse_target(url) == expected
    assert parse_target(url).authority == authority
    assert parse_target(expected.url) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is not an http:// or https:// URL"),
        ("api.example", "is not an http:// or https:// URL"),
        ("ftp://api.example", "is not an http:// or https:// URL"),
        ("ws://api.example", "is not an http:// or https:// URL"),
        ("https:/api.example", "is not an http:// or https:// URL"),
        ("https://", "is not a name or an address"),
        ("https:///v1", "is not a name or an address"),
        ("https://a b", "characters that no URL has"),
        ("https://a\\b", "characters that no URL has"),
        ("https://\N{LATIN SMALL LETTER U WITH DIAERESIS}.example", "xn-- form"),
        ("https://a\n", "characters that no URL has"),
        ("https://a..\u2024", "characters that no URL has"),
        ("https://user@a.example", "must not have a user or password"),
        ("https://a.example?x=1", "must not have a query"),
        ("https://a.example/?", "must not have a query"),
        ("https://a.example/#x", "must not have a query or a fragment"),
        ("https://a.example:0", "from 1 to 65535"),
        ("https://a.example:65536", "from 1 to 65535"),
        ("https://a.example:", "host and port that can be understood"),
        ("https://a.example:x", "host and port that can be understood"),
        ("https://a:1:2", "host and port that can be understood"),
        ("https://[::g]", "is not an IPv6 address"),
        ("https://[::1%25eth0]", "is not an IPv6 address"),
        ("https://-a", "is not a name or an address"),
        ("https://a..b", "is not a name or an address"),
        ("https://" + "a" * 64, "is not a name or an address"),
        ("https://" + "a." * 127, "is not a name or an address"),
        ("https://a*", "is not a name or an address"),
        ("https://a/../b", "must not have empty, '.' or '..' segments"),
        ("https://a/%2E%2e", "must not have empty, '.' or '..' segments"),
        ("https://a//", "must not have empty, '.' or '..' segments"),
        ("https://a//b", "must not have empty, '.' or '..' segments"),
    ],
)
def test_a_url_that_is_no_plain_target_is_refused(url: str, words: str) -> None:
    """With a sentence that says why."""
    with pytest.raises(RouteError) as caught:
        parse_target(url)
    assert words in str(caught.value)


@pytest.mark.parametrize("url", ["https://user:hunter2@a.example", "https://u:hunter2 \u00fc@a", "ftp://u:hunter2@a"])
def test_a_password_is_not_repeated(url: str) -> None:
    """The message may end in a log."""
    with pytest.raises(RouteError) as caught:
        parse_target(url)
    assert "hunter2" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- the table


def test_the_great_providers_are_built_in() -> None:
    """Under their mounts."""
    for mount, url in BUILT_IN:
        found = resolved(table(), mount.encode() + b"/v1/models?x=1")
        assert found == Resolved(target=parse_target(url), path=b"/v1/models?x=1", route=mount)
    assert [url for _, url in BUILT_IN] == [
        "https://api.anthropic.com",
        "https://api.openai.com",
        "https://generativelanguage.googleapis.com",
    ]


@pytest.mark.parametrize("entry", [Entry(mount="/openai"), Entry(path="/openai"), Entry(mount="/openai/")])
def test_a_configured_route_wins_over_a_built_in_one(entry: Entry) -> None:
    """The others stay."""
    routes = table(entry)
    assert resolved(routes, b"/openai/v1").target == parse_target("https://t.example")
    assert resolved(routes, b"/anthropic/v1").target == parse_target("https://api.anthropic.com")


@pytest.mark.parametrize(
    ("entry", "target", "expected"),
    [
        (Entry(mount="/m", target="https://t/p"), b"/m/v1/x?a=b", b"/p/v1/x?a=b"),
        (Entry(mount="/m", target="https://t/p"), b"/m", b"/p"),
        (Entry(mount="/m", target="https://t/p"), b"/m?", b"/p?"),
        (Entry(mount="/m", target="https://t/p"), b"/m/", b"/p/"),
        (Entry(mount="/m"), b"/m", b"/"),
        (Entry(mount="/m"), b"/m?q", b"/?q"),
        (Entry(mount="/m", target=SELF), b"/m/v1/responses", b"/v1/responses"),
        (Entry(path="/v1", target="https://t/p"), b"/v1/x", b"/p/v1/x"),
        (Entry(path="/v1"), b"/v1?x?y", b"/v1?x?y"),
        (Entry(path="/v1", target=SELF), b"/v1/responses", b"/v1/responses"),
        (Entry(mount="/"), b"/any/thing", b"/any/thing"),
        (Entry(path="/", target="https://t/p"), b"/", b"/p/"),
        (Entry(mount="/m"), b"/m//evil.example/x", b"//evil.example/x"),
        (Entry(mount="/m"), b"/m/%41%2f%2F//a+b~\\c?%2e/../=;", b"/%41%2f%2F//a+b~\\c?%2e/../=;"),
        (Entry(mount="/m"), b"/m/...", b"/..."),
        (Entry(mount="/m"), b"/m/a..b/.well-known/x.", b"/a..b/.well-known/x."),
        (Entry(mount="/m"), b"/m/100%", b"/100%"),
        (Entry(mount="/m%2Fn"), b"/m%2Fn/x", b"/x"),
    ],
)
def test_a_mount_is_stripped_and_a_path_is_kept(entry: Entry, target: bytes, expected: bytes) -> None:
    """And nothing else is changed."""
    assert resolved(table(entry), target).path == expected


def test_the_longest_route_wins() -> None:
    """Whatever their order in the file."""
    rows = [Entry(path="/v1", target="https://a"), Entry(path="/v1/messages", target="https://b"), Entry(mount="/")]
    for routes in (table(*rows), table(*reversed(rows))):
        assert resolved(routes, b"/v1/messages/count_tokens").target == parse_target("https://b")
        assert resolved(routes, b"/v1/models").target == parse_target("https://a")
        assert resolved(routes, b"/v2").target == parse_target("https://t.example")


@pytest.mark.parametrize(
    "target", [b"/v1/messagesx", b"/v1", b"/v1/Messages", b"/v1//messages", b"/v1/m%65ssages", b"//v1/messages", b"/"]
)
def test_routes_match_whole_segments_of_raw_bytes(target: bytes) -> None:
    """A prefix of a word is another word, and so is another way to write it."""
    refusal = refused(table(Entry(path="/v1/messages")), target)
    assert (refusal.status, refusal.code) == (404, "route_not_found")
    assert "/anthropic, /gemini, /openai, /v1/messages" in refusal.message


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"m/x",
        b"https://api.anthropic.com/anthropic/v1",
        b"http://evil.example/m",
        b"evil.example:443",
        b"/m/a b",
        b"/m/a\r\nX: y",
        b"/m/\x00",
        b"/m/\x7f",
        b"/m/\xc3\xa9",
        b"/m?\xff",
        b"/m?a b",
        b"/m#x",
        b"/m?x#y",
        b"/m/..",
        b"/m/.",
        b"/m/./x",
        b"/m/../x",
        b"/../m",
        b"/m/.%2e/x",
        b"/m/%2E./x",
        b"/m/%2e%2E",
        b"/m/%2e",
        b"/m/%252e%252E/x",
        b"/m/a%2f..%2fb",
        b"/m/a%2F%2e%2E",
        b"/m/a%5c..%5Cb",
        b"/m/a\\..\\b",
        b"/m/..\\b",
        b"/m/..;x/y",
        b"/m/..%3bx/y",
        b"/m/%00",
        b"/m/a%2500b",
    ],
)
def test_what_could_lead_elsewhere_is_refused(target: bytes) -> None:
    """Whatever a server may do with it; the answer does not repeat it."""
    refusal = refused(table(Entry(mount="/m", target="https://t/p")), target)
    assert (refusal.status, refusal.code) == (400, "invalid_target")
    assert len(target) < 5 or target.decode("latin-1") not in refusal.message


def test_many_layers_of_quoting_cost_no_time() -> None:
    """Each is looked through once, and there are few."""
    assert resolved(table(Entry(mount="/m")), b"/m/%" + b"25" * 500_000 + b"2e").path.endswith(b"252e")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([Entry()], "[[route]] number 1: give either `mount`"),
        ([Entry(mount="/a"), Entry(mount="/m", path="/m")], "[[route]] '/m': give either `mount`"),
        ([Entry(mount="m")], "[[route]] 'm': this is not a path"),
        ([Entry(mount="")], "[[route]] number 1: this is not a path"),
        ([Entry(path="/m?x")], "'/m?x': this is not a path"),
        ([Entry(path="/m#x")], "'/m#x': this is not a path"),
        ([Entry(path="/m x")], "'/m x': this is not a path"),
        ([Entry(path="//")], "'//': this is not a path"),
        ([Entry(path="//m")], "'//m': this is not a path"),
        ([Entry(path="/m//n")], "'/m//n': this is not a path"),
        ([Entry(path="/a/..")], "'/a/..': this is not a path"),
        ([Entry(path="/a/%2E")], "'/a/%2E': this is not a path"),
        ([Entry(path="/\u00fc")], "'/\u00fc': this is not a path"),
        ([Entry(path="/\ud800")], "this is not a path"),
        ([Entry(path="/m", target="t")], "[[route]] '/m' target: 't' is not an http:// or https:// URL"),
        ([Entry(path="/m", target="SELF")], "[[route]] '/m' target: 'SELF' is not"),
        ([Entry(path="/m"), Entry(mount="/m")], "two routes begin with /m"),
        ([Entry(path="/m"), Entry(path="/m/")], "two routes begin with /m"),
        ([Entry(path="/"), Entry(mount="/")], "two routes begin with /: "),
    ],
)
def test_a_bad_route_is_refused_at_start(rows: list[Entry], words: str) -> None:
    """By where it begins, or by its number in the file."""
    with pytest.raises(RouteError) as caught:
        table(*rows)
    assert words in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- properties

PIECES = st.sampled_from(
    [
        b"/",
        b".",
        b"..",
        b"//",
        b"%2e",
        b"%2F",
        b"%5C",
        b"%00",
        b"%25",
        b"\\",
        b";",
        b"?",
        b"#",
        b"@",
        b":",
        b"evil.example",
        b"/m",
        b"/m/",
        b"/v1",
        b"http://",
        b"a",
        b" ",
        b"\r\n",
        b"\xff",
    ]
)
TARGETS = st.binary(max_size=40) | st.lists(PIECES, max_size=12).map(b"".join)
PREFIXES = st.sampled_from(["", "/p", "/p/q%2Fr", "/.well-known"])


def reachable(path: bytes) -> list[bytes]:
    """Where a lenient server gets to that unquotes, then knows both slashes and dots."""
    steps: list[bytes] = []
    for segment in unquote_to_bytes(path.partition(b"?")[0]).replace(b"\\", b"/").split(b"/"):
        if segment == b"..":
            steps = steps[:-1]
        elif segment not in (b"", b"."):
            steps.append(segment)
    return steps


@given(
    target=TARGETS,
    prefix=PREFIXES,
    strip=st.booleans(),
    begin=st.sampled_from(["/", "/m", "/v1/x"]),
    port=st.integers(1, 65535),
)
@example(target=b"/m/%2e%2e%2f", prefix="/p", strip=True, begin="/m", port=1)
@example(target=b"//evil.example/m", prefix="/p", strip=True, begin="/", port=1)
def test_no_request_chooses_its_host_or_leaves_the_prefix(
    target: bytes, prefix: str, strip: bool, begin: str, port: int
) -> None:
    """For any bytes."""
    where = parse_target(f"https://t.example:{port}{prefix}")
    entry = Entry(mount=begin, target=where.url) if strip else Entry(path=begin, target=where.url)
    found = table(entry).resolve(target)
    if isinstance(found, RouteRefusal):
        assert found.status in {400, 404}
        return
    assert isinstance(found.target, Target)
    if found.target.host == "t.example":
        assert found.target == where
        path, mark, query = found.path.partition(b"?")
        assert path.startswith(where.prefix + b"/") or path == where.prefix
        assert (mark + query) == b"".join(target.partition(b"?")[1:])
        assert reachable(path)[: len(reachable(where.prefix))] == reachable(where.prefix)
    else:
        assert target.startswith(tuple(mount.encode() for mount, _ in BUILT_IN))
    assert found.path.startswith(b"/")
    assert all(0x21 <= byte <= 0x7E for byte in found.path)


@given(rest=st.binary(max_size=30), query=st.none() | st.binary(max_size=30))
def test_what_is_quoted_properly_always_passes_unchanged(rest: bytes, query: bytes | None) -> None:
    """Unless it has dot segments or zero bytes."""
    quoted = quote_from_bytes(rest, safe=b"").encode()
    asked = b"" if query is None else b"?" + quote_from_bytes(query).encode()
    found = table(Entry(mount="/m")).resolve(b"/m/x" + quoted + asked)
    if b"\0" not in rest and b"." not in rest and b"%" not in rest:
        assert found == Resolved(target=parse_target("https://t.example"), path=b"/x" + quoted + asked, route="/m")


@given(st.text(max_size=30) | st.from_regex(r"https?://[a-z\[\]:@/?#.%0-9]{0,20}", fullmatch=True))
def test_any_text_is_a_target_or_a_sentence(url: str) -> None:
    """Never another error; what is accepted means the same when it is written again."""
    try:
        target = parse_target(url)
    except RouteError as error:
        assert str(error)  # noqa: PT017 - that it may also be accepted is the point
    else:
        assert parse_target(target.url) == target


def test_routes_made_by_hand_need_no_built_in_ones() -> None:
    """The sidecar's --direct may know one provider only."""
    only = Route(prefix=b"/x", target=parse_target("https://t.example"), strip=True)
    assert refused(RouteTable([only]), b"/openai/v1").status == 404
    assert resolved(RouteTable([only]), b"/x/y").path == b"/y"


def test_a_route_that_is_not_for_the_caller_is_none_at_all() -> None:
    """And no shorter one stands in for it; the refusal names only what is for the caller."""
    rows = [Entry(target="http://a.example", path="/v1"), Entry(target="http://b.example", mount="/")]
    routes = table(*rows)
    found = routes.resolve(b"/v1/x", lambda prefix: prefix in {"/", "/openai"})
    assert isinstance(found, RouteRefusal)
    assert (found.status, found.code) == (404, "route_not_found")
    assert "begins with one of /, /openai;" in found.message
    assert isinstance(routes.resolve(b"/v2", lambda prefix: prefix == "/"), Resolved)
    nothing = routes.resolve(b"/v2", lambda _: False)
    assert isinstance(nothing, RouteRefusal)
    assert "one of none, for this key;" in nothing.message
