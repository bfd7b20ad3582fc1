"""Routes: the table that the configuration makes, and the target of one request by it.

Scheme, host and port come from the configuration alone, whatever a request says. Path and query are passed on as they
came: nothing normalises or quotes them again. Not here: connecting to a target.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final, Literal, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

#: The target of a route that leads into the gateway's own API.
SELF: Final = "self"

Scheme: TypeAlias = Literal["http", "https"]

_URL: Final = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/]*)(?P<path>/.*)?", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{1,5}))?")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_UNQUOTED: Final = 3
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]*")


class RouteError(ValueError):
    """A route of the configuration cannot be used; the message names it and says what to do."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server, and the path to put before that of each request: `b""`, or one that ends without a `/`."""

    scheme: Scheme
    host: str
    port: int
    prefix: bytes = b""

    @property
    def authority(self) -> bytes:
        """The value of the Host line: it names a port that is not the scheme's default (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    @property
    def url(self) -> str:
        """The URL of the target, for messages."""
        return f"{self.scheme}://{self.authority.decode('ascii')}{self.prefix.decode('ascii')}"


#: A server, or the gateway's own API.
RouteTarget: TypeAlias = Target | Literal["self"]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Requests whose path is `prefix`, or begins with it and a `/`, go to `target`, with or without the prefix."""

    prefix: bytes
    target: RouteTarget
    strip: bool


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """The server of one request, and the origin-form target (RFC 9112, 3.2.1) to send.

    `route` is the prefix of the route that led there, as its user writes it.
    """

    target: RouteTarget
    path: bytes
    route: str = "/"


class RouteRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why no route takes a request: status, code and message of the answer. It quotes nothing of the request."""

    status: int
    code: Literal["invalid_target", "route_not_found"]
    message: str


class RouteRow(Protocol):
    """A `[[route]]` of the configuration."""

    @property
    def mount(self) -> str | None:
        """A path that is stripped."""

    @property
    def path(self) -> str | None:
        """A path that is kept."""

    @property
    def target(self) -> str:
        """A URL, or `self`."""


BUILT_IN: Final = (
    ("/anthropic", "https://api.anthropic.com"),
    ("/openai", "https://api.openai.com"),
    ("/gemini", "https://generativelanguage.googleapis.com"),
)


class RouteTable:
    """All routes, the longest first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = sorted(routes, key=lambda route: len(route.prefix), reverse=True)
        prefixes = [route.prefix for route in self.routes]
        for prefix in prefixes:
            if prefixes.count(prefix) > 1:
                raise RouteError(f"two routes begin with {prefix.decode('ascii') or '/'}: which one is meant?")

    def resolve(self, target: bytes, may_reach: Callable[[str], bool] = lambda _: True) -> Resolved | RouteRefusal:
        """Return the server of a request with this target, and the target to send.

        `may_reach` says by its prefix whether a route is for the caller. One that is not is refused like none at all,
        and no shorter one stands in for it.
        """
        path, mark, query = target.partition(b"?")
        reason = _why_refused(target, path)
        if reason is not None:
            return RouteRefusal(status=400, code="invalid_target", message=reason)
        for route in self.routes:
            if path == route.prefix or path.startswith(route.prefix + b"/"):
                name = _shown(route)
                if not may_reach(name):
                    break
                return Resolved(target=route.target, path=_forwarded(route, path) + mark + query, route=name)
        begins = ", ".join(sorted(filter(may_reach, map(_shown, self.routes)))) or "none, for this key"
        message = f"no route leads there: a path begins with one of {begins}; a [[route]] of the configuration adds one"
        return RouteRefusal(status=404, code="route_not_found", message=message)


def _shown(route: Route) -> str:
    """Return the prefix of a route as its user writes it; that of `/` is empty."""
    return route.prefix.decode("ascii") or "/"


def route_table(rows: Iterable[RouteRow], *, built_in: bool = True) -> RouteTable:
    """Make the table of the configured routes and, if wanted, of the built-in ones that they do not replace.

    Raises:
        RouteError: a row is not valid.
    """
    routes = [_route(number, row) for number, row in enumerate(rows)]
    taken = {route.prefix for route in routes}
    offered = BUILT_IN if built_in else ()
    others = [Route(prefix=mount.encode(), target=parse_target(url), strip=True) for mount, url in offered]
    return RouteTable([*routes, *(route for route in others if route.prefix not in taken)])


def parse_target(url: str) -> Target:
    """Parse the URL of a target.

    Raises:
        RouteError: it is not a plain http or https URL.
    """
    if "@" in url.partition("://")[2].partition("/")[0]:  # the message must not repeat a password
        raise RouteError("the target must not have a user or password: the agent sends its own credentials")
    if not url.isascii() or not _VISIBLE.fullmatch(url.encode("ascii")) or "\\" in url:
        raise RouteError(
            f"{url!r} has characters that no URL has: quote them as %XX, and write a host in its xn-- form"
        )
    if "?" in url or "#" in url:
        raise RouteError(f"{url!r} must not have a query or a fragment")
    found = _URL.fullmatch(url)
    if found is None:
        raise RouteError(f"{url!r} is not an http:// or https:// URL")
    scheme: Scheme = "https" if found["scheme"].lower() == "https" else "http"
    host, port = _host_and_port(url, found["authority"], scheme)
    path = (found["path"] or "").removesuffix("/").encode("ascii")
    if not _is_plain(path):
        raise RouteError(f"the path of {url!r} must not have empty, '.' or '..' segments")
    return Target(scheme=scheme, host=host, port=port, prefix=path)


def _host_and_port(url: str, authority: str, scheme: Scheme) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise RouteError(f"{url!r} has no host and port that can be understood: write HOST or HOST:PORT")
    host = found["host"].lower()
    port = int(found["port"] or DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65535:  # noqa: PLR2004 - the range of ports
        raise RouteError(f"the port of {url!r} must be from 1 to 65535")
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise RouteError(f"the host of {url!r} is not an IPv6 address") from None
        if address.scope_id is not None:
            raise RouteError(f"the host of {url!r} is not an IPv6 address that means the same everywhere")
        return str(address), port
    if not _NAME.fullmatch(host):
        raise RouteError(f"the host of {url!r} is not a name or an address")
    return host, port


def _route(number: int, row: RouteRow) -> Route:
    begin = row.mount if row.path is None else row.path
    name = f"[[route]] {begin!r}" if begin else f"[[route]] number {number + 1}"
    if begin is None or (row.mount is not None and row.path is not None):
        raise RouteError(f"{name}: give either `mount`, which is stripped, or `path`, which is kept")
    try:
        target: RouteTarget = SELF if row.target == SELF else parse_target(row.target)
    except RouteError as error:
        raise RouteError(f"{name} target: {error}") from None
    prefix = begin.removesuffix("/").encode("utf-8", "surrogatepass")
    if not begin.startswith("/") or b"?" in prefix or not _is_plain(prefix):
        raise RouteError(f"{name}: this is not a path: write /, or /name, without empty, '.' or '..' segments")
    return Route(prefix=prefix, target=target, strip=row.path is None)


def _forwarded(route: Route, path: bytes) -> bytes:
    before = b"" if route.target == SELF else route.target.prefix
    return (before + (path[len(route.prefix) :] if route.strip else path)) or b"/"


def _why_refused(target: bytes, path: bytes) -> str | None:
    if not target.startswith(b"/"):
        return "the request target must be a path that begins with / (RFC 9112, 3.2.1), not a URL or a host"
    if not _VISIBLE.fullmatch(target) or b"#" in target:
        return "the request target has bytes that no target has: they must be quoted as %XX"
    if _has_dot_segment(path):
        return "the request target has a '.' or '..' segment, or a zero byte: it is not passed on"
    return None


def _is_plain(prefix: bytes) -> bool:
    """Tell whether a configured path, without a slash at its end, names one folder and nothing else."""
    whole = prefix + b"/"
    return _why_refused(whole, whole) is None and b"//" not in whole


def _has_dot_segment(path: bytes) -> bool:
    """Tell whether a server could read a step to another folder in the path, even if it unquotes it three times.

    Some servers take a backslash for a `/` (WHATWG URL, 4.4), and some take `..;x` for `..`; a zero byte ends a name.
    """
    for _ in range(_UNQUOTED + 1):
        segments = path.replace(b"\\", b"/").split(b"/")
        if b"\0" in path or any(segment.partition(b";")[0] in (b".", b"..") for segment in segments):
            return True
        path = unquote_to_bytes(path)
    return False
