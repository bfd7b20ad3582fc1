"""Running turns, whatever transport asked for them."""

from __future__ import annotations
