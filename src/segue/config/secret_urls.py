"""Addresses of databases, which may hold a password: as they may be shown. Pure. Not here: what they mean."""

from __future__ import annotations

from urllib.parse import parse_qsl

#: Options of a query that are secrets, or say where one is.
_SECRETS = frozenset({"password", "sslpassword", "passfile", "oauth_client_secret"})


def without_password(url: str) -> str:
    """Return a URL with `(set)` in place of its user, its password and the secrets of its query."""
    scheme, mark, rest = url.partition("://")
    rest, asks, query = rest.partition("?")
    user, at, hosts = rest.rpartition("@")
    pairs = [_shown(pair) for pair in query.split("&")]
    return f"{scheme}{mark}{'(set)' if user else ''}{at}{hosts}{asks}{'&'.join(pairs)}"


def _shown(pair: str) -> str:
    """Return a part of a query; its name is decoded first, since `%70assword` is a password too."""
    name = next((name for name, _ in parse_qsl(pair, keep_blank_values=True)), "")
    return f"{name}=(set)" if name in _SECRETS else pair
