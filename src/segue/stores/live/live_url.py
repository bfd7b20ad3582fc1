"""The URL of what gateways share, as the configuration gives it. Pure. Not here: connecting (`redis_link`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

MEMORY: Final = "memory:"
_POSSIBLE: Final = (
    "possible are: memory: (one gateway), redis://HOST:6379/0, rediss://… (TLS), unix:///run/redis.sock?db=0, "
    "redis+sentinel://HOST:26379,HOST:26379/PRIMARY, redis+cluster://HOST:6379,HOST:6379; each may have "
    "USER:PASSWORD@ before the host, and ?prefix=NAME for its keys. valkey:// means the same"
)
_PREFIX = re.compile(r"[\w.-]{1,64}")
#: As in RFC 3986, appendix B. `urlsplit` knows one server, and refuses several of which one is an IPv6 address.
_PARTS = re.compile(
    r"(?:(?P<scheme>[^:/?#]+):)?(?://(?P<servers>[^/?#]*))?(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_SCHEME = re.compile(r"(redis|valkey)(s?)(?:\+(sentinel|cluster))?")
_SENTINEL_PORT, _PORT = 26379, 6379

Kind = Literal["single", "sentinel", "cluster"]


class Address(NamedTuple):
    """One server."""

    host: str
    port: int


class LiveUrl(msgspec.Struct, frozen=True, kw_only=True):
    """Where Redis or Valkey is. A `path` is that of a Unix socket; `primary` is the name that Sentinels know."""

    kind: Kind
    addresses: Sequence[Address] = ()
    path: str | None = None
    primary: str = ""
    db: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = None
    prefix: str = "segue"

    def __repr__(self) -> str:
        return f"LiveUrl({self.kind}, {self.path or self.addresses})"  # a traceback must not show the password


def is_shared(url: str) -> bool:
    """Say whether several gateways share what is there."""
    return url != MEMORY


def parse_live_url(url: str) -> LiveUrl:
    """Parse the URL of a Redis or Valkey. Raises `ValueError` if it is none; the message shows no password."""
    found = _PARTS.fullmatch(url)
    assert found is not None  # it matches every text
    scheme, query = (found["scheme"] or "").lower(), found["query"] or ""
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise _wrong(url, "it cannot be read") from error
    login, _, servers = (found["servers"] or "").rpartition("@")
    username, _, password = login.partition(":")
    prefix = options.pop("prefix", "segue")
    if not _PREFIX.fullmatch(prefix):
        raise _wrong(url, "a prefix has letters, digits, dots and dashes")
    path = unquote(found["path"])
    if scheme == "unix":
        where = LiveUrl(kind="single", path=path, db=_parse_db(url, options.pop("db", "0")))
        fault = None if path and not servers else "it names no socket"
    else:
        where = _parse_servers(url, scheme, servers, path=[part for part in path.split("/") if part])
        fault = "it has a fragment" if found["fragment"] else None
    if fault or options:
        raise _wrong(url, fault or f"{next(iter(options))!r} is no option")
    login_of = {"username": unquote(username) or None, "password": unquote(password) or None}
    return msgspec.structs.replace(where, prefix=prefix, **login_of)


def check_live_url(url: str) -> None:
    """Raise `ValueError` if nothing has such a URL; open nothing."""
    if is_shared(url):
        parse_live_url(url)


def redact_live_url(url: str) -> str:
    """Return a URL without its user and password, as it may be shown."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://(set)@{tail}" if at else url


def _parse_servers(url: str, scheme: str, servers: str, *, path: list[str]) -> LiveUrl:
    """Parse what a URL says beside its login and its options."""
    found = _SCHEME.fullmatch(scheme)
    if found is None:
        raise _wrong(url, "it is of another kind")
    kind: Kind = found[3] or "single"  # type: ignore[assignment]  # the expression matches nothing else
    addresses = _parse_addresses(url, servers, _SENTINEL_PORT if kind == "sentinel" else _PORT)
    if kind == "single" and len(addresses) > 1:
        raise _wrong(url, "several servers are a redis+cluster:// or a redis+sentinel://")
    primary = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not primary:
        raise _wrong(url, "the name of the primary, as the Sentinels know it, is missing")
    if len(path) > (kind != "cluster"):
        raise _wrong(url, "a cluster has no databases" if kind == "cluster" else "there is one database")
    db = _parse_db(url, path[0] if path else "0")
    return LiveUrl(kind=kind, addresses=addresses, primary=primary, db=db, tls=bool(found[2]))


def _parse_addresses(url: str, servers: str, port: int) -> list[Address]:
    found = []
    for server in servers.split(","):
        try:
            one = urlsplit(f"//{server}")
        except ValueError as error:
            raise _wrong(url, "an address in brackets is an IPv6 address") from error
        try:
            host, own_port = one.hostname, one.port
        except ValueError as error:
            raise _wrong(url, "a port is a number up to 65535") from error
        if not host:
            raise _wrong(url, "a host is missing")
        found.append(Address(host, own_port or port))
    return found


def _parse_db(url: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 3:  # noqa: PLR2004 - servers have 16 by default
        raise _wrong(url, "a database is a number")
    return int(text)


def _wrong(url: str, why: str) -> ValueError:
    shown = redact_live_url(url).partition("?")[0]
    return ValueError(f"{shown!r} is not what gateways can share: {why}; {_POSSIBLE}")
