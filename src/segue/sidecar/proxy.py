"""An HTTP proxy on the way to gateways: its address, its credentials, and the hosts that are reached without it.

It is asked to `CONNECT`, and TLS with the gateway goes on inside (RFC 9110, 9.3.6), so that it sees the gateway's name
and nothing else. A `ws://` gateway is reached without it: it would see the keys. Pure. Not here: where its address
comes from (`segue.config`), and the connection (`segue.sidecar.connector`).
"""

from __future__ import annotations

import base64
import ipaddress
import re
from urllib.parse import unquote, urlsplit

import msgspec

from segue.http.origins import authority_of

_DEFAULT_PORT = 80
_TLS_PORT = 443
#: An entry of NO_PROXY that is no network: a name or an address, which may have brackets and a port.
_ENTRY = re.compile(r"\[?(?P<host>[^\[\]]*?)\]?(?::(?P<port>[0-9]{1,5}))?")
_HOST = re.compile(r"[\w.:%-]+")


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy. Its credentials are apart from its address, which messages and the log show."""

    url: str
    authorization: str | None = None
    """The value of `Proxy-Authorization`."""
    no_proxy: str = ""
    """What is reached without it, as the variable NO_PROXY says it."""

    @property
    def headers(self) -> dict[str, str]:
        """The header lines that are for the proxy alone."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization}

    def leads_to(self, url: str) -> bool:
        """Tell whether a tunnel's address is reached through it."""
        return is_proxied(url, self.no_proxy)


def parse_proxy(text: str, no_proxy: str = "") -> Proxy:
    """Return the proxy at `http://[USER:PASSWORD@]HOST[:PORT]`; the scheme may be left out.

    Raises:
        ValueError: this is not the address of an HTTP proxy. The message does not repeat it, since it may hold a
            password.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    if separator and scheme.lower() != "http":
        raise ValueError("only an HTTP proxy can be used, such as http://HOST:PORT")
    wrong = "this is not the address of a proxy, such as http://HOST:PORT"
    try:
        parts = urlsplit(f"http://{rest}")
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError:
        raise ValueError(wrong) from None
    if host is None or not _HOST.fullmatch(host):
        raise ValueError(wrong)
    authorization = None
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"  # RFC 7617, 2
        authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
    return Proxy(url=f"http://{authority_of(host, port)}", authorization=authorization, no_proxy=no_proxy)


def is_proxied(url: str, no_proxy: str) -> bool:
    """Tell whether a proxy is on the way to a tunnel's address: only if TLS hides the keys, and NO_PROXY allows it."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or _TLS_PORT
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return parts.scheme == "wss" and not any(_covers(entry, host, port) for entry in entries if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of NO_PROXY covers a host: `*`, a name and all below it, an address, or a network."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        pass
    found = _ENTRY.fullmatch(entry)
    if found is None or (found["port"] is not None and int(found["port"]) != port):
        return False
    name = found["host"].removeprefix("*").removeprefix(".").rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
