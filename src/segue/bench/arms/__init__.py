"""What a benchmark compares: servers, clients and paths, and the processes that they run in."""

from __future__ import annotations
