"""The gateway's side of the delta tunnel."""

from __future__ import annotations
