"""segue keeps the history of a conversation with a model where it is needed, so that each turn sends only what is new.
It re-exports nothing: import what you need from `segue.client`, `segue.gateway` and the other packages by name.
"""

from __future__ import annotations

__version__ = "0.1.0"
