"""The rules of HTTP that gateway, sidecar, egress, upstreams and tunnel share, without any I/O.

Heads and hop-by-hop header lines (`heads`), their syntax (`field_syntax`) and their bytes (`head_writing`), what a
request (`request_rules`) and a reply (`reply_rules`) may say, their content (`message_content`, `chunked_content`),
Host and Origin (`origins`), routes and targets (`routes`), error replies (`error_replies`), content codings both ways
(`content_coding`, `content_decoding`), server-sent events (`sse`), `Retry-After` (`retry_after`), WebSocket messages
and handshakes (`websocket`), and varints (`varints`). Not here: sockets, and the frames of WebSockets, which are
wsproto's and aiohttp's. The package re-exports nothing.
"""

from __future__ import annotations
