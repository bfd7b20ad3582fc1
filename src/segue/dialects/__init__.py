"""Dialects: pure translation between the Responses API and what providers speak. No I/O, no clock, no randomness.

`interface` is the contract with the upstreams; `chat`, `messages` and `responses` are the dialects. A dialect's
`request` writes the body of a request and its `stream` reads the reply; the modules beside them are shared by all.
Not here: server-sent events as bytes (`http.sse`).
"""
