"""aiohttp's client, made safe: what everything that calls a server with it shares.

A connector that never takes an unasked reply for the answer to a request (`connector`), a request body in pieces that
tells whether it was written (`body`), reading a reply to its last byte (`reply_body`), and a count of the bytes on the
wire (`wire_meter`). Not here: what is sent and what an answer means (`upstreams`, `client`), and the client of the
tunnel, which keeps every byte (`egress`). The package re-exports nothing.
"""

from __future__ import annotations
