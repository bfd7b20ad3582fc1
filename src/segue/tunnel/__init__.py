"""Byte continuation, pure: documents as deltas against bases, the fold of replies, tunnel frames, both ends' machines.

No I/O, no clock, no randomness: bytes, ids and `now` come in, packets and events come out. The wire format is written
down in docs/spec/tunnel.md. It re-exports nothing.
"""

from __future__ import annotations
