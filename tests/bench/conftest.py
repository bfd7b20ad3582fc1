"""What tests of benchmarks share: their tunnels are heard."""

from __future__ import annotations

from tests.heard_tunnels import heard_tunnels

__all__ = ["heard_tunnels"]
