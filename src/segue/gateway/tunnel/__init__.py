"""The gateway's side of the tunnel: it rebuilds what sidecars send, and forwards it."""

from __future__ import annotations
