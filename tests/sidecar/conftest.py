"""Fixtures of the sidecar's tests."""

from __future__ import annotations

from tests.sidecar.ssh_machines import box

__all__ = ["box"]
