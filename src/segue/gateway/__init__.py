"""The gateway: one executor for every transport, and the HTTP and WebSocket shells around it.

`executor` runs a turn; `http` and `websocket` speak to clients; `access` decides who may; `replies` is the one table
from problems to statuses; `app` puts it together and drains it.
"""
