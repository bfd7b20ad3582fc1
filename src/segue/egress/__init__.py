"""Sends one HTTP request, or one WebSocket, byte for byte to a target that was fixed at start.

The gateway's tunnel uses it, and the sidecar when it goes to the provider itself. Not here: the tunnel, and what a
request means.
"""
