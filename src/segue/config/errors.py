"""The one error of this package."""

from __future__ import annotations


class ConfigError(ValueError):
    """The configuration cannot be used; the message says where and what to do."""
