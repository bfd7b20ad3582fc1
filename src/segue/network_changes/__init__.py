"""Notices when the network of this machine changes: what failed before may work now. The package re-exports nothing."""

from __future__ import annotations
