"""What a running gateway can take from a configuration that was read again, and what needs a restart. Pure.

Keys, routes and upstreams are replaced while turns run. The settings of sockets, stores and budgets are those that the
gateway began with. Not here: replacing anything (`app`).
"""

from __future__ import annotations

from msgspec import Struct

from segue.config import Config

#: The tables, and the other settings, that a running gateway replaces.
_REPLACED = ("key", "certificate", "tenant", "route", "upstream", "tunnel.built_in_routes")
_TLS = ("server.tls_cert", "server.tls_key", "server.tls_client_ca", "server.tls_client_auth")
#: The tables of other programs.
_FOREIGN = ("sidecar", "ssh", "agent")


def restart_needed(before: Config, after: Config) -> list[str]:
    """Return the settings that differ and that only a restart changes, as their user writes them."""
    changed: list[str] = []
    for table in Config.__struct_fields__:
        old, new = getattr(before, table), getattr(after, table)
        if table in (*_FOREIGN, "limits") or old == new:
            continue
        if isinstance(old, Struct):
            changed += [f"{table}.{name}" for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
        elif table not in _REPLACED:
            changed.append(f"[[{table}]]")
    if before.server.tls_cert is not None and after.server.tls_cert is not None:  # other files are read, too
        changed = [name for name in changed if name not in _TLS]
    return [name for name in changed if name not in _REPLACED]
