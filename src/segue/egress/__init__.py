"""The HTTP client of tunnelled requests: it sends a request with the bytes it came with, to a configured target.

The gateway uses it behind the tunnel, and the sidecar when it calls a provider without the tunnel. docs/decisions/0026
says why upstreams have another client. Not here: the tunnel, and what a request means.
"""
