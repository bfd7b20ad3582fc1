"""What a benchmark measures with: a byte counter, a cheap WebSocket client, and CPU pinning."""

from __future__ import annotations
