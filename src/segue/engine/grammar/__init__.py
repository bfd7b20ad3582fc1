"""Grammars: from JSON schemas to what a model may write."""

from __future__ import annotations
