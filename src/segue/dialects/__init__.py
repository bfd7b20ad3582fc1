"""Dialects: pure translation between the Responses API and what providers speak. No I/O, no clock, no randomness.

`interface` is the seam to the upstreams; `chat`, `messages` and `responses` are the dialects; `sse` reads and writes
server-sent events.
"""
