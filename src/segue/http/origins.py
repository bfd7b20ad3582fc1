"""Host and Origin checks for a server on this machine, against DNS rebinding and cross-site requests.

Loopback is no authentication: any web page can make a browser connect to 127.0.0.1. So a request must name one of our
hosts (against DNS rebinding), and must not come from a web page of another origin (Origin, Sec-Fetch-Site). Nor does
loopback mean that the client is on this machine: it may be a proxy that is. Gateway and sidecar both use these checks.
Not here: keys, and the text of a refusal.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

Denial: TypeAlias = Literal["forbidden_host", "forbidden_origin"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(
    r"(?P<name>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]+)(?::[0-9]*)?"
)  # RFC 9110, 7.2; nothing else may hide in it
#: Header fields that proxies add (RFC 7239, 2; RFC 9110, 7.6.3; and by custom), beside those that begin with
#: `x-forwarded-`.
_PROXY_FIELDS = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"})
_FOREIGN_SITES = frozenset({"cross-site", "same-site"})


#: How many Host fields that were found good are remembered, and how long such a field may be.
_REMEMBERED = 64
_LONGEST_REMEMBERED = 300


class OriginPolicy:
    """The host names that are ours beside loopback (`*`: all), and the other origins whose pages may call us.

    Nearly every request names the same host, and to read an address takes longer than all else: so good Host fields are
    remembered, a few of them.
    """

    def __init__(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._hosts = frozenset(_plain(name) for name in hosts if name)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self.remembered: set[str] = set()
        """Host fields that were found good."""

    def denial(self, host: str, *, origin: str | None, fetch_site: str | None) -> Denial | None:
        """Check the values of Host, Origin and Sec-Fetch-Site; None accepts the request."""
        if host not in self.remembered and not self._is_good(host):
            return "forbidden_host"
        if origin is not None:
            return None if self._is_ours(origin, host) else "forbidden_origin"
        if fetch_site is not None and fetch_site.lower() in _FOREIGN_SITES:
            return "forbidden_origin"
        return None

    def _is_good(self, host: str) -> bool:
        name = host_name(host)
        if not (is_loopback(name) or name in self._hosts or "*" in self._hosts):
            return False
        if len(self.remembered) < _REMEMBERED and len(host) <= _LONGEST_REMEMBERED:
            self.remembered.add(host)
        return True

    def _is_ours(self, origin: str, host: str) -> bool:
        """Tell whether the page is our own (same host and port), or of an origin that was named."""
        if origin.lower().rstrip("/") in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
            ours = urlsplit(f"{parts.scheme}://{host}")
            our_port = ours.port or _DEFAULT_PORTS.get(parts.scheme)
        except ValueError:
            return False
        return parts.scheme in _DEFAULT_PORTS and (parts.hostname, port) == (ours.hostname, our_port)


def authority_of(host: str, port: int) -> str:
    """Return a host and a port as a URL has them: `host:port`, an IPv6 address in brackets (RFC 3986, 3.2)."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def host_name(host: str) -> str:
    """Return the name of a Host field without its port; `""` if the field is anything else."""
    found = _HOST.fullmatch(host)
    return "" if found is None else _plain(found["name"])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host name or address."""
    name = _plain(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_forwarded(fields: Iterable[str]) -> bool:
    """Tell from the names of its header fields whether a proxy has passed a request on. Many proxies add none."""
    return any(name in _PROXY_FIELDS or name.startswith("x-forwarded-") for name in map(str.lower, fields))


def is_from_this_machine(peer: str | None, host: str, fields: Iterable[str]) -> bool:
    """Tell whether a request seems to come from this machine, and not through a proxy on it.

    `peer` is the address that it comes from, `host` its Host field, `fields` the names of all its header fields. A
    proxy that adds no field of its own and passes Host on cannot be told from a client here: where one may be, ask for
    more.
    """
    return peer is not None and is_loopback(peer) and is_loopback(host_name(host)) and not is_forwarded(fields)


def _plain(name: str) -> str:
    return name.strip("[]").lower().rstrip(".")
