"""What operators see of a gateway."""

from __future__ import annotations
