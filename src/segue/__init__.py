"""segue keeps the history of a conversation with a model where it is needed, so that each turn sends only what is new.

`segue.Client` and `segue.AsyncClient` are the client library. Import anything else from its package by name.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the client library when it is first asked for, so that `import segue` stays cheap (PEP 562)."""
    if name not in {"AsyncClient", "Client"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("segue.client"), name)
