"""What counts bytes and time."""

from __future__ import annotations
