"""The client library: conversations with any Responses server that survive dropped connections and lost ids.

`client` and `session` are what you use; `recovery` decides what a fault means, and `turn_machine` carries one turn
through it. Those two, and the modules below them, do no I/O. Not here: the sockets (`transports`), and the loop of an
agent, which uses this library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segue.client.client import AsyncClient as AsyncClient
    from segue.client.sync_client import Client as Client

_MODULES = {"AsyncClient": "segue.client.client", "Client": "segue.client.sync_client"}


def __getattr__(name: str) -> object:
    """Import a client when it is first asked for: who needs only a part of the library does not pay for sockets."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
