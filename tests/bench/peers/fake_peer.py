"""A tiny server that keeps histories, or forgets them, to stand in for a peer.

`fake_peer.py PORT PROVIDER keep|forget`. It uses the standard library alone, so that it starts at once.
"""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar


class Peer(BaseHTTPRequestHandler):
    """Answers one connection after the other."""

    protocol_version = "HTTP/1.1"
    histories: ClassVar[dict[str, list[Any]]] = {}
    provider, keeps = sys.argv[2], sys.argv[3] == "keep"

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/health" else 404, b"{}", "application/json")

    def do_POST(self) -> None:
        create = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        before = self.histories.get(create.pop("previous_response_id", ""), []) if self.keeps else []
        asked = {**create, "stream": False, "input": [*before, *create["input"]]}
        headers = {"Content-Type": "application/json"}
        connection = HTTPConnection(self.provider.removeprefix("http://"))
        connection.request("POST", "/v1/responses", json.dumps(asked), headers)
        response = json.loads(connection.getresponse().read())
        connection.close()
        self.histories[response["id"]] = [*asked["input"], *response["output"]]
        event = {"type": "response.completed", "response": response}
        self._answer(200, f"data: {json.dumps(event)}\n\n".encode(), "text/event-stream")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    sys.stderr.write("Error: this is printed, and not shown unless it fails\n")
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Peer).serve_forever()
