"""The HTTP and WebSocket surface of the gateway, one module per endpoint family."""

from __future__ import annotations
