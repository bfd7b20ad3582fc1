"""aiohttp's client, made safe: what everything that calls a server with it shares.

A connector that never takes an unasked reply for the answer to a request (`connector`), and a request body in pieces
that tells whether it was written (`body`). Not here: what is sent and what an answer means (`upstreams`, `client`), and
the client of the tunnel, which keeps every byte (`egress`). The package re-exports nothing.
"""

from __future__ import annotations
