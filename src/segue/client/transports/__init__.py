"""The sockets of the client library: HTTP and WebSocket, behind one interface.

Not here: what a fault means, and what is sent again (`segue.client.recovery`).
"""

from __future__ import annotations
