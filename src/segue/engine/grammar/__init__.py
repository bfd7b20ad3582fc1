"""Grammars: from JSON schemas to what a model may write, by the library llguidance."""

from __future__ import annotations
