"""The client library: conversations with any Responses server that survive dropped connections and lost ids.

`client` and `session` are what you use; `recovery` decides what a fault means, and `turn_machine` carries one turn
through it. Those two, and the modules below them, do no I/O. Not here: the sockets (`transports`), and the loop of an
agent, which uses this library.
"""

from __future__ import annotations
