"""The error that every reader of the configuration raises. Not here: reading it (`loading`)."""

from __future__ import annotations


class ConfigError(ValueError):
    """The configuration cannot be used; the message says where and what to do."""
