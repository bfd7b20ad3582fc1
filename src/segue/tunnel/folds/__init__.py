"""Folds: the bytes of a reply that an agent will repeat in its next request, for each provider API. Pure."""

from __future__ import annotations
