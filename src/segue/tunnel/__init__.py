"""The tunnel, pure: documents as deltas against bases, folds of replies, frames, header compression, and both ends.

No I/O, no clock, no randomness: bytes, ids and `now` come in, packets and events go out. `client` and `server` are the
two ends; each is an `endpoint` over a `link`. docs/spec/tunnel.md is the reference of the wire format. Not here: HTTP
itself (`segue.http`), and sockets (`segue.sidecar`, `segue.gateway`). The package re-exports nothing.
"""

from __future__ import annotations
