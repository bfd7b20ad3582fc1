"""What `segue serve` says of itself when it starts: what it serves to whom, and what of that is not safe.

Two lines for the log, and a warning for each risk that somebody may not have meant. No line holds a key, a password or
a name of an internal host. Not here: what a configuration means in full (`segue check-config`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from segue import __version__
from segue.config import Config, UpstreamConfig
from segue.http.origins import is_loopback
from segue.http.routes import RouteTable
from segue.stores.live.live_url import is_shared

#: So many names stand in a line; the rest is counted.
_SHOWN = 12


def start_lines(config: Config, models: Sequence[str], routes: RouteTable) -> list[str]:
    """Return the lines for the log: `key=value`, as in all of it."""
    prefixes = [route.prefix.decode("ascii", "backslashreplace") or "/" for route in routes.routes]
    server = config.server
    tls = "no" if server.tls_cert is None else "with_client_certificates" if server.tls_client_ca is not None else "yes"
    who = f"keys={len(config.key)} certificates={len(config.certificate)} tenants={len(_tenants(config))}"
    return [
        f"action=start version={__version__} store={_store(server.store)} models={_joined(models)}",
        f"action=start {who} tls={tls} routes={_joined(prefixes)}",
    ]


def risks(config: Config) -> Iterator[str]:
    """Yield what of a configuration lets others read, write or spend more than one may have meant."""
    server = config.server
    hosts = [server.host, *(one.host for one in config.listener)]
    if server.tls_cert is None and not all(map(is_loopback, hosts)):
        yield (
            "others on the network can read keys and conversations: it listens beyond this machine without TLS; set "
            "tls_cert and tls_key, or let a proxy with TLS in front reach it on 127.0.0.1"
        )
    if not config.callers and server.access == "anyone":
        yield "every user and program of this machine is one tenant: there is no [[key]], and access is anyone"
    if not config.callers and "*" in server.hosts:
        yield "a web page can reach it under a name of its own (DNS rebinding): hosts has *, and there is no [[key]]"
    for up in config.upstream:
        if _sends_key_in_clear(up):
            yield f"upstream {up.name!r}: its key is sent without encryption, since base_url begins with http://"
    if is_shared(server.live) and server.threads == "memory":
        yield (
            "a message thread goes on at one gateway alone, and is sent whole to any other: live is shared, but "
            'threads is memory; set threads = "durable"'
        )
    if "synchronous=normal" in server.store.lower():
        yield "a turn that was acknowledged may be lost in a power cut: the store has synchronous=NORMAL"


def _sends_key_in_clear(up: UpstreamConfig) -> bool:
    if up.base_url is None or not (up.key_env is not None or up.pass_key):
        return False
    parts = urlsplit(up.base_url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _store(url: str) -> str:
    """Return the address of a store without a user and a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl() if parts.netloc else url


def _tenants(config: Config) -> set[str]:
    return {caller.tenant for caller in config.callers}


def _joined(names: Sequence[str]) -> str:
    shown = ",".join(name.replace(" ", "_") for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown},+{len(names) - _SHOWN}"
