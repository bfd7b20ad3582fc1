"""HTTP as every part of segue needs it: heads, routes, content codings, server-sent events, refusals. Pure."""

from __future__ import annotations
